#include "pending.h"

namespace drover_bridge {
namespace {

const char* const kCodes[] = {"OK",      "E_ABORTED",     "E_ARGUMENT", "E_BUSY",    "E_CLOSED",
                              "E_IO",    "E_ISA",         "E_MEMORY",   "E_PROGRAM", "E_RANGE",
                              "E_SHAPE", "E_UNSUPPORTED", "E_FORMAT",   "E_INTERNAL"};

void call(napi_env env, napi_value, void*, void* data) {
  Message* message = static_cast<Message*>(data);
  if (env != nullptr) {
    const Napi::HandleScope scope(env);
    message->deliver(Napi::Env(env));
  }
  delete message;
}

}  // namespace

std::shared_ptr<Mailbox> Mailbox::make(Napi::Env env) {
  const std::shared_ptr<Mailbox> mailbox = std::make_shared<Mailbox>();
  napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "drover"), 0, 1, nullptr, nullptr,
                                  nullptr, call, &mailbox->function_);
  napi_unref_threadsafe_function(env, mailbox->function_);
  // Hooks run last in, first out: this one before that by which Node frees the thread-safe function.
  napi_add_env_cleanup_hook(
      env,
      [](void* data) {
        const std::unique_ptr<std::shared_ptr<Mailbox>> held(static_cast<std::shared_ptr<Mailbox>*>(data));
        const std::lock_guard<std::mutex> lock((*held)->mutex_);
        (*held)->closed_ = true;
      },
      new std::shared_ptr<Mailbox>(mailbox));
  return mailbox;
}

void Mailbox::open(Napi::Env env) {
  if (in_flight_++ == 0) napi_ref_threadsafe_function(env, function_);
}

void Mailbox::post(Message* message) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!closed_ && napi_call_threadsafe_function(function_, message, napi_tsfn_nonblocking) == napi_ok) return;
  }
  delete message;
}

void Mailbox::settled(Napi::Env env) {
  if (--in_flight_ == 0) napi_unref_threadsafe_function(env, function_);
}

Napi::Error error_of(Napi::Env env, const drover_error& error) {
  Napi::Error result = Napi::Error::New(env, error.message);
  const bool known = static_cast<size_t>(error.code) < sizeof kCodes / sizeof kCodes[0];
  result.Set("code", Napi::String::New(env, known ? kCodes[error.code] : "E_INTERNAL"));
  result.Set("op", Napi::Number::New(env, error.op));
  result.Set("found", Napi::Number::New(env, static_cast<double>(error.found)));
  result.Set("expected", Napi::Number::New(env, static_cast<double>(error.expected)));
  result.Set("bags", Napi::Number::New(env, error.bags));
  return result;
}

void throw_error(Napi::Env env, const drover_error& error) { error_of(env, error).ThrowAsJavaScriptException(); }

void throw_argument(Napi::Env env, const char* message) {
  drover_error error{};
  error.code = DROVER_ARGUMENT;
  error.op = -1;
  error.bags = -1;
  std::snprintf(error.message, sizeof error.message, "%s", message);
  throw_error(env, error);
}

}  // namespace drover_bridge
