// Region: read-only bytes that programs take weights from; a mapped file or a copy.
#ifndef DROVER_BRIDGE_REGION_H_
#define DROVER_BRIDGE_REGION_H_

#include <napi.h>

#include "drover.h"

namespace drover_bridge {

class Region : public Napi::ObjectWrap<Region> {
 public:
  static Napi::Function define(Napi::Env env);
  // new Region(path: string, bytes: number) or new Region(data: Uint8Array)
  explicit Region(const Napi::CallbackInfo& info);
  void Finalize(Napi::Env) override { drover_region_release(region_); }
  drover_region* get() const { return region_; }

 private:
  Napi::Value release(const Napi::CallbackInfo& info);
  drover_region* region_ = nullptr;
};

}  // namespace drover_bridge

#endif  // DROVER_BRIDGE_REGION_H_
