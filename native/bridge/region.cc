#include "region.h"

#include "pending.h"

namespace drover_bridge {

Napi::Function Region::define(Napi::Env env) {
  return DefineClass(env, "Region", {InstanceMethod<&Region::release>("release")});
}

Region::Region(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Region>(info) {
  drover_error error{};
  int code = DROVER_OK;
  if (info.Length() == 2 && info[0].IsString() && info[1].IsNumber()) {
    const std::string path = info[0].As<Napi::String>().Utf8Value();
    code = drover_region_map(path.c_str(), static_cast<uint64_t>(info[1].As<Napi::Number>().DoubleValue()), &region_,
                             &error);
  } else if (info.Length() == 1 && info[0].IsTypedArray() &&
             info[0].As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array) {
    const Napi::Uint8Array data = info[0].As<Napi::Uint8Array>();
    code = drover_region_copy(data.Data(), data.ByteLength(), &region_, &error);
  } else {
    throw_argument(info.Env(), "Region takes (path, bytes) or (Uint8Array)");
    return;
  }
  if (code != DROVER_OK) throw_error(info.Env(), error);
}

Napi::Value Region::release(const Napi::CallbackInfo& info) {
  drover_region_release(region_);
  region_ = nullptr;
  return info.Env().Undefined();
}

}  // namespace drover_bridge
