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
  if (!info[1].IsTypedArray() || info[1].As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array ||
      !info[5].IsObject()) {
    throw_argument(info.Env(), "quantize takes (from, source, to, rows, cols, options)");
    return false;
  }
  const Napi::Uint8Array source = info[1].As<Napi::Uint8Array>();
  const Napi::Object options = info[5].As<Napi::Object>();
  const Napi::Value importance = options.Get("importance");
  request->from = number(0);
  request->to = number(2);
  request->rows = number(3);
  request->cols = number(4);
  request->source = source.Data();
  request->source_bytes = source.ByteLength();
  request->options.struct_bytes = sizeof request->options;
  request->options.threads = options.Get("threads").ToNumber().Uint32Value();
  request->options.finite = options.Get("finite").ToBoolean() ? 1 : 0;
  if (importance.IsTypedArray() && importance.As<Napi::TypedArray>().TypedArrayType() == napi_float32_array) {
    const Napi::Float32Array weights = importance.As<Napi::Float32Array>();
    if (weights.ElementLength() != request->cols) {
      throw_argument(info.Env(), "quantize: one importance per column");
      return false;
    }
    request->options.importance = weights.Data();
  }
  uint32_t elements = 0, bytes = 0;
  if (drover_dtype_block(request->to, &elements, &bytes) != DROVER_OK) {
    throw_argument(info.Env(), "quantize: no such dtype");
    return false;
  }
  request->out_bytes = (uint64_t{request->cols} + elements - 1) / elements * bytes * request->rows;
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
};

struct QuantizeMessage : Message {
  Napi::Promise::Deferred deferred;
  std::shared_ptr<Mailbox> mailbox;
  std::shared_ptr<Work> work;
  int code = DROVER_OK;
  drover_error error{};

  QuantizeMessage(Napi::Env env, std::shared_ptr<Mailbox> box, std::shared_ptr<Work> w)
      : deferred(Napi::Promise::Deferred::New(env)), mailbox(std::move(box)), work(std::move(w)) {}
  void deliver(Napi::Env env) override {
    mailbox->settled(env);
    if (code != DROVER_OK) {
      deferred.Reject(error_of(env, error).Value());
      return;
    }
    Napi::Uint8Array result = Napi::Uint8Array::New(env, work->request.out_bytes);
    std::memcpy(result.Data(), work->out.get(), work->request.out_bytes);
    deferred.Resolve(result);
  }
};

}  // namespace

Napi::Value quantize(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<Work> work = std::make_shared<Work>();
  if (!read_request(info, &work->request)) return env.Undefined();
  if (!work->own()) {
    drover_error error{DROVER_MEMORY, -1, static_cast<int64_t>(work->request.out_bytes), 0, "out of memory"};
    throw_error(env, error);
    return env.Undefined();
  }
  const std::shared_ptr<Mailbox> mailbox = env.GetInstanceData<AddonData>()->mailbox;
  QuantizeMessage* message = new QuantizeMessage(env, mailbox, work);
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
  Napi::Uint8Array result = Napi::Uint8Array::New(env, request.out_bytes);
  drover_error error{};
  if (request.run(result.Data(), &error) != DROVER_OK) {
    throw_error(env, error);
    return env.Undefined();
  }
  return result;
}

}  // namespace drover_bridge
