// Stored rows into another number format: quantize and quantizeSync.
#ifndef DROVER_BRIDGE_QUANTIZE_H_
#define DROVER_BRIDGE_QUANTIZE_H_

#include <napi.h>

namespace drover_bridge {

// quantize(from, source: Uint8Array, to, rows, cols, { threads, finite, importance?: Float32Array }, out: Uint8Array):
// { promise: Promise<Uint8Array>, abort() }. Source and importance are copied before this returns; `out` is written
// when the promise resolves, with it.
Napi::Value quantize(const Napi::CallbackInfo& info);
// The same, blocking: void.
Napi::Value quantize_sync(const Napi::CallbackInfo& info);

}  // namespace drover_bridge

#endif  // DROVER_BRIDGE_QUANTIZE_H_
