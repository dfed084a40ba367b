#include "program.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "pending.h"
#include "region.h"

namespace drover_bridge {
namespace {

AddonData& data_of(Napi::Env env) { return *env.GetInstanceData<AddonData>(); }

// The bytes of any typed array; false with an exception pending for anything else.
struct Span {
  uint8_t* data;
  size_t bytes;
};
bool span_of(const Napi::Value& value, Span* out) {
  if (!value.IsTypedArray()) {
    throw_argument(value.Env(), "a typed array is needed");
    return false;
  }
  const Napi::TypedArray array = value.As<Napi::TypedArray>();
  *out = {static_cast<uint8_t*>(array.ArrayBuffer().Data()) + array.ByteOffset(), array.ByteLength()};
  return true;
}

uint32_t number(const Napi::CallbackInfo& info, size_t i) {
  return info[i].IsNumber() ? info[i].As<Napi::Number>().Uint32Value() : UINT32_MAX;
}

// A step in flight.
struct RunMessage : Message {
  Napi::Promise::Deferred deferred;
  Napi::ObjectReference keep;  // the Program stays alive until its step has ended
  std::shared_ptr<Mailbox> mailbox;
  int code = DROVER_OK;
  drover_error error{};

  RunMessage(Napi::Env env, Napi::Object program)
      : deferred(Napi::Promise::Deferred::New(env)), keep(Napi::Persistent(program)), mailbox(data_of(env).mailbox) {}
  ~RunMessage() override {
    if (!delivered) keep.SuppressDestruct();  // the environment is gone, and its references with it
  }
  void deliver(Napi::Env env) override {
    delivered = true;
    mailbox->settled(env);
    if (code == DROVER_OK) {
      deferred.Resolve(env.Undefined());
    } else {
      deferred.Reject(error_of(env, error).Value());
    }
  }
  bool delivered = false;
};

void run_done(void* user, int code, const drover_error* error) {
  RunMessage* message = static_cast<RunMessage*>(user);
  message->code = code;
  if (error != nullptr) message->error = *error;
  const std::shared_ptr<Mailbox> mailbox = message->mailbox;
  mailbox->post(message);
}

struct ProgressMessage : Message {
  std::shared_ptr<Napi::FunctionReference> callback;
  double done, total;
  void deliver(Napi::Env env) override {
    callback->Call({Napi::Number::New(env, done), Napi::Number::New(env, total)});
    if (env.IsExceptionPending()) env.GetAndClearPendingException();  // the caller's problem, not the load's
  }
};

// A load in flight: a thread of its own waits for the pool's work.
struct LoadState {
  std::vector<uint8_t> words;
  std::vector<drover_region*> regions;  // held until the load has ended
  drover_load_options options{};
  std::string prepared_cache;
  std::shared_ptr<Napi::FunctionReference> progress;
  std::atomic<int32_t> cancel{0};
  std::atomic<uint32_t> shown{0};
  std::shared_ptr<Mailbox> mailbox;

  LoadState() = default;
  LoadState(const LoadState&) = delete;
  LoadState& operator=(const LoadState&) = delete;
  ~LoadState() { release_regions(); }
  void release_regions() {
    for (drover_region* region : regions) drover_region_release(region);
    regions.clear();
  }
};

struct LoadMessage : Message {
  Napi::Promise::Deferred deferred;
  std::shared_ptr<LoadState> state;
  drover_program* program = nullptr;
  int code = DROVER_OK;
  drover_error error{};

  LoadMessage(Napi::Env env, std::shared_ptr<LoadState> s) : deferred(Napi::Promise::Deferred::New(env)), state(s) {}
  ~LoadMessage() override {
    drover_program_release(program);
    // The environment is gone, and its references with it.
    if (state->progress != nullptr) state->progress->SuppressDestruct();
  }
  void deliver(Napi::Env env) override {
    state->mailbox->settled(env);
    state->progress.reset();
    if (code != DROVER_OK) {
      deferred.Reject(error_of(env, error).Value());
      return;
    }
    drover_program* handle = program;
    program = nullptr;
    deferred.Resolve(data_of(env).program.New({Napi::External<drover_program>::New(env, handle)}));
  }
};

void show_progress(void* user, uint64_t done, uint64_t total) {
  LoadState* state = static_cast<LoadState*>(user);
  const uint32_t percent = static_cast<uint32_t>(total == 0 ? 100 : done * 100 / total);
  uint32_t shown = state->shown.load(std::memory_order_relaxed);
  if (percent <= shown || !state->shown.compare_exchange_strong(shown, percent)) return;
  ProgressMessage* message = new ProgressMessage;
  message->callback = state->progress;
  message->done = static_cast<double>(done);
  message->total = static_cast<double>(total);
  state->mailbox->post(message);
}

int load(LoadState& state, drover_program** program, drover_error* error) {
  const int code = drover_program_load(state.words.data(), state.words.size(), state.regions.data(),
                                       static_cast<uint32_t>(state.regions.size()), &state.options, program, error);
  state.release_regions();  // JavaScript may keep the state, through `abort`, for longer
  return code;
}

void load_apart(LoadMessage* message) {
  message->code = load(*message->state, &message->program, &message->error);
  const std::shared_ptr<Mailbox> mailbox = message->state->mailbox;
  mailbox->post(message);
}

}  // namespace

Napi::Function Program::define(Napi::Env env) {
  return DefineClass(
      env, "Program",
      {InstanceMethod<&Program::run>("run"), InstanceMethod<&Program::run_sync>("runSync"),
       InstanceMethod<&Program::try_run_sync>("tryRunSync"), InstanceMethod<&Program::abort>("abort"),
       InstanceMethod<&Program::read>("read"), InstanceMethod<&Program::write>("write"),
       InstanceMethod<&Program::read_kv>("readKv"), InstanceMethod<&Program::copy_page>("copyPage"),
       InstanceMethod<&Program::profile>("profile"), InstanceMethod<&Program::threads>("threads"),
       InstanceMethod<&Program::memory>("memory"), InstanceMethod<&Program::bag_counts>("bagCounts"),
       InstanceMethod<&Program::resident_bytes>("residentBytes"), InstanceMethod<&Program::release>("release")});
}

Program::Program(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Program>(info) {
  if (info.Length() != 1 || !info[0].IsExternal()) {
    throw_argument(info.Env(), "programs come from loadProgram");
    return;
  }
  program_ = info[0].As<Napi::External<drover_program>>().Data();
}

bool Program::usable(Napi::Env env) const {
  if (program_ != nullptr) return true;
  drover_error error{};
  error.code = DROVER_CLOSED;
  error.op = -1;
  error.bags = -1;
  std::snprintf(error.message, sizeof error.message, "the program has been released");
  throw_error(env, error);
  return false;
}

// run(step: Uint32Array): Promise<void>. The step is copied before this returns.
Napi::Value Program::run(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Span step;
  if (!usable(env) || !span_of(info[0], &step)) return env.Undefined();
  RunMessage* message = new RunMessage(env, Value());
  const Napi::Promise promise = message->deferred.Promise();
  message->mailbox->open(env);
  drover_error error{};
  if (drover_program_submit(program_, step.data, step.bytes, run_done, message, &error) != DROVER_OK) {
    message->code = error.code;
    message->error = error;
    message->deliver(env);
    delete message;
  }
  return promise;
}

// runSync(step: Uint32Array): void. Blocks; for small programs.
Napi::Value Program::run_sync(const Napi::CallbackInfo& info) {
  Span step;
  drover_error error{};
  if (!usable(info.Env()) || !span_of(info[0], &step)) return info.Env().Undefined();
  if (drover_program_run(program_, step.data, step.bytes, &error) != DROVER_OK) throw_error(info.Env(), error);
  return info.Env().Undefined();
}

// tryRunSync(step: Uint32Array): boolean. Runs it on this thread unless others keep the pool's threads busy.
Napi::Value Program::try_run_sync(const Napi::CallbackInfo& info) {
  Span step;
  drover_error error{};
  if (!usable(info.Env()) || !span_of(info[0], &step)) return info.Env().Undefined();
  const int code = drover_program_try_run(program_, step.data, step.bytes, &error);
  if (code != DROVER_OK && code != DROVER_BUSY) throw_error(info.Env(), error);
  return Napi::Boolean::New(info.Env(), code == DROVER_OK);
}

Napi::Value Program::abort(const Napi::CallbackInfo& info) {
  if (program_ != nullptr) drover_program_abort(program_);
  return info.Env().Undefined();
}

// read(tensor, row, rows, out): void
Napi::Value Program::read(const Napi::CallbackInfo& info) {
  Span out;
  drover_error error{};
  if (!usable(info.Env()) || !span_of(info[3], &out)) return info.Env().Undefined();
  if (drover_program_read(program_, number(info, 0), number(info, 1), number(info, 2), out.data, out.bytes, &error) !=
      DROVER_OK) {
    throw_error(info.Env(), error);
  }
  return info.Env().Undefined();
}

// write(tensor, row, rows, data): void
Napi::Value Program::write(const Napi::CallbackInfo& info) {
  Span data;
  drover_error error{};
  if (!usable(info.Env()) || !span_of(info[3], &data)) return info.Env().Undefined();
  if (drover_program_write(program_, number(info, 0), number(info, 1), number(info, 2), data.data, data.bytes,
                           &error) != DROVER_OK) {
    throw_error(info.Env(), error);
  }
  return info.Env().Undefined();
}

// readKv(layer, kvHead, what, pages: Uint32Array, positions, headDim, out: Float32Array): void
Napi::Value Program::read_kv(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Span pages, out;
  drover_error error{};
  if (!usable(env) || !span_of(info[3], &pages) || !span_of(info[6], &out)) return env.Undefined();
  const uint64_t positions = number(info, 4), head_dim = number(info, 5);
  if (pages.bytes / 4 * DROVER_PAGE_POSITIONS < positions || out.bytes / 4 != positions * head_dim) {
    throw_argument(env, "readKv: pages or output of the wrong length");
    return env.Undefined();
  }
  if (drover_program_kv_head_dim(program_) != head_dim) {
    throw_argument(env, "readKv: head_dim differs from the program's");
    return env.Undefined();
  }
  if (drover_program_read_kv(program_, number(info, 0), number(info, 1), number(info, 2),
                             reinterpret_cast<const uint32_t*>(pages.data), static_cast<uint32_t>(positions),
                             reinterpret_cast<float*>(out.data), &error) != DROVER_OK) {
    throw_error(env, error);
  }
  return env.Undefined();
}

// copyPage(from, to): void
Napi::Value Program::copy_page(const Napi::CallbackInfo& info) {
  drover_error error{};
  if (!usable(info.Env())) return info.Env().Undefined();
  if (drover_program_copy_page(program_, number(info, 0), number(info, 1), &error) != DROVER_OK)
    throw_error(info.Env(), error);
  return info.Env().Undefined();
}

// profile(out: BigUint64Array): void
Napi::Value Program::profile(const Napi::CallbackInfo& info) {
  Span out;
  drover_error error{};
  if (!usable(info.Env()) || !span_of(info[0], &out)) return info.Env().Undefined();
  if (drover_program_profile(program_, reinterpret_cast<uint64_t*>(out.data), out.bytes / 8, &error) != DROVER_OK)
    throw_error(info.Env(), error);
  return info.Env().Undefined();
}

// threads(): number
Napi::Value Program::threads(const Napi::CallbackInfo& info) {
  if (!usable(info.Env())) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), drover_program_threads(program_));
}

Napi::Value Program::memory(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  drover_memory memory{};
  if (!usable(env)) return env.Undefined();
  drover_program_memory(program_, &memory);
  Napi::Object result = Napi::Object::New(env);
  result.Set("activations", Napi::Number::New(env, static_cast<double>(memory.activations)));
  result.Set("kv", Napi::Number::New(env, static_cast<double>(memory.kv)));
  result.Set("prepared", Napi::Number::New(env, static_cast<double>(memory.prepared)));
  result.Set("scratch", Napi::Number::New(env, static_cast<double>(memory.scratch)));
  result.Set("mapped", Napi::Number::New(env, static_cast<double>(memory.mapped)));
  result.Set("tables", Napi::Number::New(env, static_cast<double>(memory.tables)));
  result.Set("preparedMapped", Napi::Number::New(env, static_cast<double>(memory.prepared_mapped)));
  return result;
}

// bagCounts(): {skipped, clamped}
Napi::Value Program::bag_counts(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  drover_bag_counts counts{};
  drover_error error{};
  if (!usable(env)) return env.Undefined();
  if (drover_program_bag_counts(program_, &counts, &error) != DROVER_OK) {
    throw_error(env, error);
    return env.Undefined();
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("skipped", Napi::Number::New(env, static_cast<double>(counts.skipped)));
  result.Set("clamped", Napi::Number::New(env, static_cast<double>(counts.clamped)));
  return result;
}

// residentBytes(): number
Napi::Value Program::resident_bytes(const Napi::CallbackInfo& info) {
  if (!usable(info.Env())) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), static_cast<double>(drover_program_resident_bytes(program_)));
}

Napi::Value Program::release(const Napi::CallbackInfo& info) {
  drover_program_release(program_);
  program_ = nullptr;
  return info.Env().Undefined();
}

namespace {

// Takes words, regions and options from the call; null with an exception pending when they are something else.
std::shared_ptr<LoadState> load_state(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Span words;
  if (!span_of(info[0], &words)) return nullptr;
  if (!info[1].IsArray() || !info[2].IsObject()) {
    throw_argument(env, "loading takes words, regions and options");
    return nullptr;
  }
  const std::shared_ptr<LoadState> state = std::make_shared<LoadState>();
  state->words.assign(words.data, words.data + words.bytes);
  const Napi::Array regions = info[1].As<Napi::Array>();
  const Napi::Function region_class = data_of(env).region.Value();
  for (uint32_t i = 0; i < regions.Length(); i++) {
    const Napi::Value value = regions.Get(i);
    drover_region* region = nullptr;
    const bool known = value.IsObject() && value.As<Napi::Object>().InstanceOf(region_class);
    if (known) region = Region::Unwrap(value.As<Napi::Object>())->get();
    if (region == nullptr) {
      throw_argument(env, known ? "a region has been released" : "regions are Region objects");
      return nullptr;
    }
    drover_region_retain(region);
    state->regions.push_back(region);
  }
  const Napi::Object options = info[2].As<Napi::Object>();
  const auto option = [&](const char* name) {
    const Napi::Value value = options.Get(name);
    return value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : 0.0;
  };
  state->options.struct_bytes = sizeof state->options;
  state->options.threads = static_cast<uint32_t>(option("threads"));
  state->options.memory_budget = static_cast<uint64_t>(option("memoryBudget"));
  state->options.verify_weights = static_cast<uint32_t>(option("verifyWeights"));
  const Napi::Value folder = options.Get("preparedCache");
  if (folder.IsString()) {
    state->prepared_cache = folder.As<Napi::String>().Utf8Value();
    state->options.prepared_cache = state->prepared_cache.c_str();
  }
  state->options.cancel = reinterpret_cast<const int32_t*>(&state->cancel);
  return state;
}

}  // namespace

Napi::Value load_program(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<LoadState> state = load_state(info);
  if (state == nullptr) return env.Undefined();
  if (info[3].IsFunction()) {
    state->progress = std::make_shared<Napi::FunctionReference>(Napi::Persistent(info[3].As<Napi::Function>()));
    state->options.progress = show_progress;
    state->options.user = state.get();
  }
  state->mailbox = data_of(env).mailbox;
  state->mailbox->open(env);
  LoadMessage* message = new LoadMessage(env, state);
  Napi::Object result = Napi::Object::New(env);
  result.Set("promise", message->deferred.Promise());
  result.Set("abort", Napi::Function::New(env, [state](const Napi::CallbackInfo&) { state->cancel.store(1); }));
  std::thread(load_apart, message).detach();
  return result;
}

Napi::Value load_program_sync(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<LoadState> state = load_state(info);
  if (state == nullptr) return env.Undefined();
  drover_program* program = nullptr;
  drover_error error{};
  if (load(*state, &program, &error) != DROVER_OK) {
    throw_error(env, error);
    return env.Undefined();
  }
  return data_of(env).program.New({Napi::External<drover_program>::New(env, program)});
}

}  // namespace drover_bridge
