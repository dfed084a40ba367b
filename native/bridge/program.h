// Program: a loaded program. Its methods translate and nothing more; every check is the core's.
#ifndef DROVER_BRIDGE_PROGRAM_H_
#define DROVER_BRIDGE_PROGRAM_H_

#include <napi.h>

#include "drover.h"

namespace drover_bridge {

class Program : public Napi::ObjectWrap<Program> {
 public:
  static Napi::Function define(Napi::Env env);
  // Only loadProgram constructs: it passes the handle as an External.
  explicit Program(const Napi::CallbackInfo& info);
  void Finalize(Napi::Env) override { drover_program_release(program_); }

 private:
  Napi::Value run(const Napi::CallbackInfo& info);
  Napi::Value run_sync(const Napi::CallbackInfo& info);
  Napi::Value try_run_sync(const Napi::CallbackInfo& info);
  Napi::Value abort(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value read_kv(const Napi::CallbackInfo& info);
  Napi::Value copy_page(const Napi::CallbackInfo& info);
  Napi::Value profile(const Napi::CallbackInfo& info);
  Napi::Value threads(const Napi::CallbackInfo& info);
  Napi::Value memory(const Napi::CallbackInfo& info);
  Napi::Value bag_counts(const Napi::CallbackInfo& info);
  Napi::Value resident_bytes(const Napi::CallbackInfo& info);
  Napi::Value release(const Napi::CallbackInfo& info);
  // False, with an exception pending, once released.
  bool usable(Napi::Env env) const;
  drover_program* program_ = nullptr;
};

// loadProgram(words: Uint32Array, regions: Region[], options: {threads, memoryBudget, verifyWeights},
//   onProgress?: (done, total) => void) -> { promise: Promise<Program>, abort(): void }
Napi::Value load_program(const Napi::CallbackInfo& info);
// loadProgramSync(words, regions, options) -> Program. Blocks the thread; for programs without large weights.
Napi::Value load_program_sync(const Napi::CallbackInfo& info);

}  // namespace drover_bridge

#endif  // DROVER_BRIDGE_PROGRAM_H_
