// The addon's exports: tables and facts of the core, Region, Program, loadProgram, quantize, probes.
#include <napi.h>

#include <thread>

#include "pending.h"
#include "program.h"
#include "quantize.h"
#include "region.h"

namespace drover_bridge {
namespace {

Napi::Value cpu(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  drover_cpu_info cpu{};
  drover_error error{};
  if (drover_cpu(&cpu, &error) != DROVER_OK) {
    throw_error(env, error);
    return env.Undefined();
  }
  Napi::Object result = Napi::Object::New(env);
  const auto text = [&](const char* name, const char* value) { result.Set(name, Napi::String::New(env, value)); };
  const auto count = [&](const char* name, double value) { result.Set(name, Napi::Number::New(env, value)); };
  text("isa", cpu.isa);
  text("isaBest", cpu.isa_best);
  text("features", cpu.features);
  count("logicalCpus", cpu.logical_cpus);
  count("physicalCores", cpu.physical_cores);
  count("affinityCpus", cpu.affinity_cpus);
  count("quotaCpus", cpu.quota_cpus);
  count("threads", cpu.threads);
  text("threadsReason", cpu.threads_reason);
  count("l1dBytes", static_cast<double>(cpu.l1d_bytes));
  count("l2Bytes", static_cast<double>(cpu.l2_bytes));
  count("l3Bytes", static_cast<double>(cpu.l3_bytes));
  text("floatPath", cpu.float_path);
  text("bytePath", cpu.byte_path);
  return result;
}

// tuning(): { requests, floatRows, floatPanels, byteRows }
Napi::Value get_tuning(const Napi::CallbackInfo& info) {
  drover_tuning tuning{};
  drover_tuning_get(&tuning);
  Napi::Object result = Napi::Object::New(info.Env());
  const auto set = [&](const char* name, double value) { result.Set(name, Napi::Number::New(info.Env(), value)); };
  set("requests", tuning.requests);
  set("floatRows", tuning.float_rows);
  set("floatPanels", tuning.float_panels);
  set("byteRows", static_cast<double>(tuning.byte_rows));
  return result;
}

// setTuning(requests, floatRows, floatPanels, byteRows: number)
void set_tuning(const Napi::CallbackInfo& info) {
  const auto number = [&](size_t i) { return info[i].ToNumber(); };
  const drover_tuning tuning{number(0).Uint32Value(), number(1).Uint32Value(), number(2).Uint32Value(),
                             static_cast<uint64_t>(number(3).Int64Value())};
  drover_error error{};
  if (drover_tuning_set(&tuning, &error) != DROVER_OK) throw_error(info.Env(), error);
}

// [{ name, signature }], in order of opcodes
Napi::Value ops(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Array result = Napi::Array::New(env);
  for (uint32_t i = 0; drover_op_name(i) != nullptr; i++) {
    Napi::Object op = Napi::Object::New(env);
    op.Set("name", Napi::String::New(env, drover_op_name(i)));
    op.Set("signature", Napi::String::New(env, drover_op_signature(i)));
    result.Set(i, op);
  }
  return result;
}

// [{ name, elements, bytes, activations }], in order of ids; activations: the dtype id a prepared weight multiplies, or
// -1
Napi::Value dtypes(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Array result = Napi::Array::New(env);
  uint32_t total = 0;
  while (drover_dtype_name(total) != nullptr) total++;
  for (uint32_t i = 0; i < total; i++) {
    uint32_t elements = 0, bytes = 0;
    drover_dtype_block(i, &elements, &bytes);
    const uint32_t activations = drover_gemm_activations(i);
    Napi::Object dtype = Napi::Object::New(env);
    dtype.Set("name", Napi::String::New(env, drover_dtype_name(i)));
    dtype.Set("elements", Napi::Number::New(env, elements));
    dtype.Set("bytes", Napi::Number::New(env, bytes));
    dtype.Set("activations", Napi::Number::New(env, activations < total ? static_cast<double>(activations) : -1.0));
    result.Set(i, dtype);
  }
  return result;
}

uint32_t argument(const Napi::CallbackInfo& info, size_t i) {
  return info[i].IsNumber() ? info[i].As<Napi::Number>().Uint32Value() : UINT32_MAX;
}

Napi::Value activation_row_bytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(),
                           static_cast<double>(drover_activation_row_bytes(argument(info, 0), argument(info, 1))));
}

Napi::Value kv_page_bytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(drover_kv_page_bytes(argument(info, 0), argument(info, 1),
                                                                                argument(info, 2), argument(info, 3))));
}

Napi::Value prepared_bytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(
      info.Env(), static_cast<double>(drover_prepared_bytes(argument(info, 0), argument(info, 1), argument(info, 2))));
}

struct ProbeMessage : Message {
  Napi::Promise::Deferred deferred;
  std::shared_ptr<Mailbox> mailbox;
  drover_limits limits{};
  int code = DROVER_OK;
  drover_error error{};
  ProbeMessage(Napi::Env env, std::shared_ptr<Mailbox> box)
      : deferred(Napi::Promise::Deferred::New(env)), mailbox(std::move(box)) {}
  void deliver(Napi::Env env) override {
    mailbox->settled(env);
    if (code != DROVER_OK) {
      deferred.Reject(error_of(env, error).Value());
      return;
    }
    Napi::Object result = Napi::Object::New(env);
    result.Set("bufferBytes", Napi::Number::New(env, static_cast<double>(limits.buffer_bytes)));
    result.Set("readBytesPerSecond", Napi::Number::New(env, limits.read_bytes_per_second));
    result.Set("f32PerSecond", Napi::Number::New(env, limits.f32_per_second));
    result.Set("int8PerSecond", Napi::Number::New(env, limits.int8_per_second));
    result.Set("bf16PerSecond", Napi::Number::New(env, limits.bf16_per_second));
    deferred.Resolve(result);
  }
};

// probe(threads: number, bufferBytes: number): Promise<the limits, as above>
Napi::Value probe(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<Mailbox> mailbox = env.GetInstanceData<AddonData>()->mailbox;
  ProbeMessage* message = new ProbeMessage(env, mailbox);
  const Napi::Promise promise = message->deferred.Promise();
  const uint32_t threads = info[0].IsNumber() ? argument(info, 0) : 0;
  const double wanted = info[1].IsNumber() ? info[1].As<Napi::Number>().DoubleValue() : 0;
  const uint64_t bytes = wanted > 0 && wanted < 1e15 ? static_cast<uint64_t>(wanted) : 0;
  mailbox->open(env);
  std::thread([message, mailbox, threads, bytes] {
    message->code = drover_probe(threads, bytes, &message->limits, &message->error);
    mailbox->post(message);
  }).detach();
  return promise;
}

struct GatherMessage : Message {
  Napi::Promise::Deferred deferred;
  std::shared_ptr<Mailbox> mailbox;
  drover_gather gather{};
  int code = DROVER_OK;
  drover_error error{};
  GatherMessage(Napi::Env env, std::shared_ptr<Mailbox> box)
      : deferred(Napi::Promise::Deferred::New(env)), mailbox(std::move(box)) {}
  void deliver(Napi::Env env) override {
    mailbox->settled(env);
    if (code != DROVER_OK) return deferred.Reject(error_of(env, error).Value());
    Napi::Object result = Napi::Object::New(env);
    result.Set("rowsPerSecond", Napi::Number::New(env, gather.rows_per_second));
    result.Set("distance", Napi::Number::New(env, gather.distance));
    deferred.Resolve(result);
  }
};

// probeGather(threads, rows, stride, rowBytes): Promise<{rowsPerSecond, distance}>
Napi::Value probe_gather(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<Mailbox> mailbox = env.GetInstanceData<AddonData>()->mailbox;
  GatherMessage* message = new GatherMessage(env, mailbox);
  const Napi::Promise promise = message->deferred.Promise();
  const uint32_t threads = argument(info, 0);
  message->gather.rows = argument(info, 1);
  message->gather.stride = argument(info, 2);
  message->gather.row_bytes = argument(info, 3);
  mailbox->open(env);
  std::thread([message, mailbox, threads] {
    message->code = drover_probe_gather(threads, &message->gather, &message->error);
    mailbox->post(message);
  }).detach();
  return promise;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  AddonData* data = new AddonData(env);
  env.SetInstanceData(data);
  data->region = Napi::Persistent(Region::define(env));
  data->program = Napi::Persistent(Program::define(env));
  exports.Set("Region", data->region.Value());
  exports.Set("loadProgram", Napi::Function::New(env, load_program, "loadProgram"));
  exports.Set("loadProgramSync", Napi::Function::New(env, load_program_sync, "loadProgramSync"));
  exports.Set("cpu", Napi::Function::New(env, cpu, "cpu"));
  exports.Set("tuning", Napi::Function::New(env, get_tuning, "tuning"));
  exports.Set("setTuning", Napi::Function::New(env, set_tuning, "setTuning"));
  exports.Set("ops", Napi::Function::New(env, ops, "ops"));
  exports.Set("dtypes", Napi::Function::New(env, dtypes, "dtypes"));
  exports.Set("activationRowBytes", Napi::Function::New(env, activation_row_bytes, "activationRowBytes"));
  exports.Set("kvPageBytes", Napi::Function::New(env, kv_page_bytes, "kvPageBytes"));
  exports.Set("preparedBytes", Napi::Function::New(env, prepared_bytes, "preparedBytes"));
  exports.Set("quantize", Napi::Function::New(env, quantize, "quantize"));
  exports.Set("quantizeSync", Napi::Function::New(env, quantize_sync, "quantizeSync"));
  exports.Set("probeGather", Napi::Function::New(env, probe_gather, "probeGather"));
  exports.Set("probe", Napi::Function::New(env, probe, "probe"));
  return exports;
}

NODE_API_MODULE(drover, init)

}  // namespace
}  // namespace drover_bridge
