// The K types: 16 groups of 16 or 8 groups of 32, with scales (and minimums) of a few bits. Layouts: decode.cc.
#include "fit.inl"
#include "super.inl"

namespace drover {
namespace {

DROVER_INLINE uint32_t whole(float v) { return static_cast<uint32_t>(static_cast<int32_t>(v)); }
DROVER_INLINE void put_half(float value, uint8_t* out) {
  const uint16_t code = float_to_half(value);
  __builtin_memcpy(out, &code, sizeof code);
}

// Codes as they are stored, from 0 up, of elements with one scale.
DROVER_INLINE void affine_codes(const float* x, uint32_t count, float scale, float minimum, float most,
                                uint8_t* codes) {
  const F32x16 inverse = f_set(inverse_of(scale)), shift = f_set(minimum);
  for (uint32_t i = 0; i < count; i += 16) {
    const F32x16 q = nearest(bounded(f_mul(f_add(f_load(x + i), shift), inverse), 0, most));
    i_store_i8(reinterpret_cast<int8_t*>(codes + i), i_from_f(q));
  }
}
template <typename Codes>
DROVER_INLINE void signed_codes(const float* x, uint32_t count, float scale, uint8_t* codes) {
  const F32x16 inverse = f_set(inverse_of(scale));
  for (uint32_t i = 0; i < count; i += 16) {
    i_store_i8(reinterpret_cast<int8_t*>(codes + i), i_from_f(Codes::stored(f_mul(f_load(x + i), inverse))));
  }
}

// Six bits each of 8 scales and 8 minimums in 12 bytes: the first four whole, the others in two parts.
DROVER_INLINE void pack_sixes(const float* scales, const float* minimums, uint8_t* out) {
  for (uint32_t i = 0; i < 4; i++) {
    const uint32_t scale = whole(scales[i + 4]), minimum = whole(minimums[i + 4]);
    out[i] = static_cast<uint8_t>(whole(scales[i]) | scale >> 4 << 6);
    out[i + 4] = static_cast<uint8_t>(whole(minimums[i]) | minimum >> 4 << 6);
    out[i + 8] = static_cast<uint8_t>((scale & 15) | (minimum & 15) << 4);
  }
}

// 8 groups of 32 with six bits for scale and minimum: what q4_k and q5_k begin with, and the codes.
template <int kMost>
DROVER_INLINE void encode_sixes(const float* x, const float* w, uint8_t* out, uint8_t* codes) {
  const AffineSuper<8> fit = fit_affine_super<8, kMost, 63>(x, w);
  put_half(fit.d, out);
  put_half(fit.dmin, out + 2);
  pack_sixes(fit.scales, fit.minimums, out + 4);
  for (uint32_t g = 0; g < 8; g++) {
    affine_codes(x + g * 32, 32, fit.d * fit.scales[g], fit.dmin * fit.minimums[g], kMost, codes + g * 32);
  }
}

void encode_q2_k(const float* x, const float* w, uint8_t* out) {
  const AffineSuper<16> fit = fit_affine_super<16, 3, 15>(x, w);
  uint8_t codes[kSuperBlock];
  for (uint32_t g = 0; g < 16; g++) {
    out[g] = static_cast<uint8_t>(whole(fit.scales[g]) | whole(fit.minimums[g]) << 4);
    affine_codes(x + g * 16, 16, fit.d * fit.scales[g], fit.dmin * fit.minimums[g], 3, codes + g * 16);
  }
  for (uint32_t i = 0; i < 64; i++) {
    const uint8_t* at = codes + i / 32 * 128 + i % 32;
    out[16 + i] = static_cast<uint8_t>(at[0] | at[32] << 2 | at[64] << 4 | at[96] << 6);
  }
  put_half(fit.d, out + 80);
  put_half(fit.dmin, out + 82);
}

void encode_q3_k(const float* x, const float* w, uint8_t* out) {
  using Codes = Integers<-4, 3>;
  const SignedSuper<16> fit = fit_signed_super<Codes, 16, 32>(x, w);
  uint8_t codes[kSuperBlock];
  __builtin_memset(out, 0, 108);
  for (uint32_t g = 0; g < 16; g++) {
    const uint32_t scale = whole(fit.scales[g] + 32);
    out[96 + g % 8] = static_cast<uint8_t>(out[96 + g % 8] | (scale & 15) << (g / 8 * 4));
    out[104 + g % 4] = static_cast<uint8_t>(out[104 + g % 4] | scale >> 4 << (g / 4 * 2));
    signed_codes<Codes>(x + g * 16, 16, fit.d * fit.scales[g], codes + g * 16);
  }
  for (uint32_t i = 0; i < kSuperBlock; i++) {
    out[i % 32] = static_cast<uint8_t>(out[i % 32] | codes[i] >> 2 << (i / 32));
    uint8_t& pairs = out[32 + i / 128 * 32 + i % 32];
    pairs = static_cast<uint8_t>(pairs | (codes[i] & 3) << (i / 32 % 4 * 2));
  }
  put_half(fit.d, out + 108);
}

void encode_q4_k(const float* x, const float* w, uint8_t* out) {
  uint8_t codes[kSuperBlock];
  encode_sixes<15>(x, w, out, codes);
  for (uint32_t i = 0; i < 128; i++) {
    const uint8_t* at = codes + i / 32 * 64 + i % 32;
    out[16 + i] = static_cast<uint8_t>(at[0] | at[32] << 4);
  }
}

void encode_q5_k(const float* x, const float* w, uint8_t* out) {
  uint8_t codes[kSuperBlock];
  encode_sixes<31>(x, w, out, codes);
  for (uint32_t i = 0; i < 32; i++) {
    uint32_t high = 0;
    for (uint32_t g = 0; g < 8; g++) high |= static_cast<uint32_t>(codes[g * 32 + i] >> 4) << g;
    out[16 + i] = static_cast<uint8_t>(high);
  }
  for (uint32_t i = 0; i < 128; i++) {
    const uint8_t* at = codes + i / 32 * 64 + i % 32;
    out[48 + i] = static_cast<uint8_t>((at[0] & 15) | (at[32] & 15) << 4);
  }
}

void encode_q6_k(const float* x, const float* w, uint8_t* out) {
  using Codes = Integers<-32, 31>;
  const SignedSuper<16> fit = fit_signed_super<Codes, 16, 128>(x, w);
  uint8_t codes[kSuperBlock];
  for (uint32_t g = 0; g < 16; g++) {
    out[192 + g] = static_cast<uint8_t>(whole(fit.scales[g]));
    signed_codes<Codes>(x + g * 16, 16, fit.d * fit.scales[g], codes + g * 16);
  }
  for (uint32_t i = 0; i < 64; i++) {
    const uint8_t* at = codes + i / 32 * 128 + i % 32;
    uint8_t* low = out + i / 32 * 64 + i % 32;
    low[0] = static_cast<uint8_t>((at[0] & 15) | (at[64] & 15) << 4);
    low[32] = static_cast<uint8_t>((at[32] & 15) | (at[96] & 15) << 4);
    out[128 + i] = static_cast<uint8_t>(at[0] >> 4 | at[32] >> 4 << 2 | at[64] >> 4 << 4 | at[96] >> 4 << 6);
  }
  put_half(fit.d, out + 208);
}

}  // namespace
}  // namespace drover
