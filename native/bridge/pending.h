// How results come home: every environment (main thread or worker) has one thread-safe function behind a mailbox. Work
// in flight shares the mailbox, and finds it closed when the environment has ended: from then on nothing may touch the
// thread-safe function, which Node frees with the environment, whoever still holds it.
#ifndef DROVER_BRIDGE_PENDING_H_
#define DROVER_BRIDGE_PENDING_H_

#include <napi.h>

#include <memory>
#include <mutex>

#include "drover.h"

namespace drover_bridge {

// A message for the environment's thread. `deliver` runs there; when the environment is gone it is only deleted, on
// any thread, and must not touch what JavaScript owns.
struct Message {
  virtual ~Message() = default;
  virtual void deliver(Napi::Env env) = 0;
};

class Mailbox {
 public:
  static std::shared_ptr<Mailbox> make(Napi::Env env);
  // On the environment's thread, once per piece of work; keeps the event loop alive until settled().
  void open(Napi::Env env);
  // From any thread: posts a message and takes ownership of it.
  void post(Message* message);
  // On the environment's thread, when a piece of work has been delivered.
  void settled(Napi::Env env);

 private:
  std::mutex mutex_;
  bool closed_ = false;
  napi_threadsafe_function function_ = nullptr;
  uint32_t in_flight_ = 0;
};

// What each environment keeps.
struct AddonData {
  std::shared_ptr<Mailbox> mailbox;
  Napi::FunctionReference region, program;
  explicit AddonData(Napi::Env env) : mailbox(Mailbox::make(env)) {}
};

// An Error with code, op, found and expected, as lib/device/native.ts expects it.
Napi::Error error_of(Napi::Env env, const drover_error& error);
// Throws in JavaScript.
void throw_error(Napi::Env env, const drover_error& error);
void throw_argument(Napi::Env env, const char* message);

}  // namespace drover_bridge

#endif  // DROVER_BRIDGE_PENDING_H_
