#include "quantize.h"

#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <thread>

#include "pending.h"

namespace drover_bridge {
namespace {

// What a call asks for. The arrays are the caller's, or copies that the call owns.
struct Request {
  uint32_t from = 0, to = 0, rows = 0, cols = 0;
  const uint8_t* source = nullptr;
  uint64_t source_bytes = 0, out_bytes = 0;
  drover_quantize_options options{};

  int run(uint8_t* out, drover_error* error) const {
    return drover_quantize(from, source, source_bytes, to, out, out_bytes, rows, cols, &options, error);
  }
};

// False with an exception pending when the arguments are something else.
bool read_request(const Napi::CallbackInfo& info, Request* request) {
  const auto number = [&](size_t i) { return info[i].IsNumber() ? info[i].As<Napi::Number>().Uint32Value() : 0; };
  const auto bytes_at = [&](size_t i) {
    return info[i].IsTypedArray() && info[i].As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array;
  };
  if (!bytes_at(1) || !info[5].IsObject() || !bytes_at(6)) {
    throw_argument(info.Env(), "quantize takes (from, source, to, rows, cols, options, out)");
    return false;
  }
  const Napi::Uint8Array source = info[1].As<Napi::Uint8Array>();
  const Napi::Object options = info[5].As<Napi::Object>();
  const Napi::Value importance = options.Get("importance");
  request->from = number(0);
  request->to = number(2);
  request->rows = number(3);
  request->cols = number(4);
  request->options.struct_bytes = sizeof request->options;
  request->options.threads = options.Get("threads").ToNumber().Uint32Value();
  request->options.finite = options.Get("finite").ToBoolean() ? 1 : 0;
  // After the options: reading them may run code that takes the array's memory away.
  request->source = source.Data();
  request->source_bytes = source.ByteLength();
  if (importance.IsTypedArray() && importance.As<Napi::TypedArray>().TypedArrayType() == napi_float32_array) {
    const Napi::Float32Array weights = importance.As<Napi::Float32Array>();
    if (weights.ElementLength() != request->cols) {
      throw_argument(info.Env(), "quantize: one importance per column");
      return false;
    }
    request->options.importance = weights.Data();
  }
  request->out_bytes = info[6].As<Napi::Uint8Array>().ByteLength();  // the core knows what it must be
  return true;
}

// A request with memory of its own, shared by the thread that works and the function that aborts.
struct Work {
  Request request;
  std::unique_ptr<uint8_t[]> source, out;
  std::unique_ptr<float[]> importance;
  std::atomic<int32_t> cancel{0};

  // False when the system refuses the memory.
  bool own() {
    source.reset(new (std::nothrow) uint8_t[request.source_bytes]);
    out.reset(new (std::nothrow) uint8_t[request.out_bytes]);
    if (source == nullptr || out == nullptr) return false;
    if (request.source_bytes != 0) std::memcpy(source.get(), request.source, request.source_bytes);
    request.source = source.get();
    if (request.options.importance != nullptr) {
      importance.reset(new (std::nothrow) float[request.cols]);
      if (importance == nullptr) return false;
      std::memcpy(importance.get(), request.options.importance, request.cols * sizeof(float));
      request.options.importance = importance.get();
    }
    request.options.cancel = reinterpret_cast<const int32_t*>(&cancel);
    return true;
  }
  // JavaScript may keep the work, through `abort`, for longer: until a collection that it has no reason to hurry.
  void disown() {
    source.reset();
    out.reset();
    importance.reset();
  }
};

struct QuantizeMessage : Message {
  Napi::Promise::Deferred deferred;
  Napi::ObjectReference target;  // the caller's array, which gets the result on the environment's thread
  std::shared_ptr<Mailbox> mailbox;
  std::shared_ptr<Work> work;
  int code = DROVER_OK;
  drover_error error{};

  bool delivered = false;

  QuantizeMessage(Napi::Env env, Napi::Object out, std::shared_ptr<Mailbox> box, std::shared_ptr<Work> w)
      : deferred(Napi::Promise::Deferred::New(env)),
        target(Napi::Persistent(out)),
        mailbox(std::move(box)),
        work(std::move(w)) {}
  ~QuantizeMessage() override {
    if (!delivered) target.SuppressDestruct();  // the environment is gone, and its references with it
  }
  void deliver(Napi::Env env) override {
    delivered = true;
    mailbox->settled(env);
    if (code != DROVER_OK) {
      work->disown();
      deferred.Reject(error_of(env, error).Value());
      return;
    }
    Napi::Uint8Array out = target.Value().As<Napi::Uint8Array>();
    // The caller may have given the array's memory away meanwhile.
    const bool fits = out.ByteLength() == work->request.out_bytes;
    if (fits) std::memcpy(out.Data(), work->out.get(), work->request.out_bytes);
    work->disown();
    if (fits) {
      deferred.Resolve(out);
    } else {
      deferred.Reject(error_of(env, {DROVER_ARGUMENT, -1, 0, 0, -1, "the output array was detached"}).Value());
    }
  }
};

}  // namespace

Napi::Value quantize(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<Work> work = std::make_shared<Work>();
  if (!read_request(info, &work->request)) return env.Undefined();
  if (!work->own()) {
    drover_error error{DROVER_MEMORY, -1, static_cast<int64_t>(work->request.out_bytes), 0, -1, "out of memory"};
    throw_error(env, error);
    return env.Undefined();
  }
  const std::shared_ptr<Mailbox> mailbox = env.GetInstanceData<AddonData>()->mailbox;
  QuantizeMessage* message = new QuantizeMessage(env, info[6].As<Napi::Object>(), mailbox, work);
  Napi::Object result = Napi::Object::New(env);
  result.Set("promise", message->deferred.Promise());
  result.Set("abort", Napi::Function::New(env, [work](const Napi::CallbackInfo&) { work->cancel.store(1); }));
  mailbox->open(env);
  std::thread([message, mailbox] {
    message->code = message->work->request.run(message->work->out.get(), &message->error);
    mailbox->post(message);
  }).detach();
  return result;
}

Napi::Value quantize_sync(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Request request;
  if (!read_request(info, &request)) return env.Undefined();
  drover_error error{};
  if (request.run(info[6].As<Napi::Uint8Array>().Data(), &error) != DROVER_OK) throw_error(env, error);
  return env.Undefined();
}

}  // namespace drover_bridge
