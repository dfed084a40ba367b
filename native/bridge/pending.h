// How results come home: every environment (main thread or worker) has one thread-safe function; work in flight holds
// a share of it, so that it outlives the environment's end until the last result has been dropped.
#ifndef DROVER_BRIDGE_PENDING_H_
#define DROVER_BRIDGE_PENDING_H_

#include <napi.h>

#include "drover.h"

namespace drover_bridge {

// A message for the environment's thread. `deliver` runs there; when the environment is gone, `drop` runs anywhere.
struct Message {
  virtual ~Message() = default;
  virtual void deliver(Napi::Env env) = 0;
};

class Mailbox {
 public:
  explicit Mailbox(Napi::Env env);
  // On the environment's thread, once per piece of work; keeps the event loop alive until close().
  void open(Napi::Env env);
  // From any thread: posts a message and takes ownership of it.
  void post(Message* message);
  // From any thread, after the last post of a piece of work.
  void release();
  // On the environment's thread, when a piece of work has been delivered.
  void settled(Napi::Env env);

 private:
  napi_threadsafe_function function_ = nullptr;
  uint32_t in_flight_ = 0;
};

// What each environment keeps.
struct AddonData {
  Mailbox mailbox;
  Napi::FunctionReference region, program;
  explicit AddonData(Napi::Env env) : mailbox(env) {}
};

// An Error with code, op, found and expected, as lib/device/native.ts expects it.
Napi::Error error_of(Napi::Env env, const drover_error& error);
// Throws in JavaScript.
void throw_error(Napi::Env env, const drover_error& error);
void throw_argument(Napi::Env env, const char* message);

}  // namespace drover_bridge

#endif  // DROVER_BRIDGE_PENDING_H_
