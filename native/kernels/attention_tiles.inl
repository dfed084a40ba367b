// The products of attention: query vectors with the keys of a page, probabilities with its values. Few vectors (a
// decoded row's) convert the cache's numbers in registers, so that each is read and converted once for all heads of
// the group; many share a converted copy. Conversions are exact: both give the same bits.
#include "kv.h"

namespace drover {
namespace {

inline constexpr uint32_t kFewVectors = 8;    // at most these are few
inline constexpr uint32_t kNearInPage = 512;  // its streams are 1 to 16 KiB long
#ifdef DROVER_AVX512
inline constexpr uint32_t kManyVectors = 8, kManyPanels = 2, kFewPanels = 4;
#else
inline constexpr uint32_t kManyVectors = 6, kManyPanels = 1, kFewPanels = 1;
#endif

// What a product asks for: nothing; the next page; besides, what it reads soon itself (where tuning wants two
// requests).
enum class Asks { kNothing, kPage, kPageAndNear };

// The next page, `ahead` bytes behind this one, comes to the second-level cache, line behind line although kP panels
// are read side by side: memory, and what foresees its readers, go faster through one stream (f16 on Zen 4 by 9 %).
// What is read soon comes from there to the first.
template <uint32_t kStep, uint32_t kP, bool kNear>
struct PageAhead {
  const uint8_t* at;
  uint64_t stride;
  int64_t ahead;
  DROVER_INLINE void ask(uint32_t panel, uint32_t k) const {
    if (k * kStep % kLine != 0) return;
    if constexpr (kNear) __builtin_prefetch(at + panel * stride + k * kStep + kNearInPage, 0, 3);
    __builtin_prefetch(at + ahead + k * kStep * kP + panel * kLine, 0, 2);
  }
};

// float_tile over rows: kRows at a time, then 4, 2 and 1.
template <typename Load, uint32_t kRows, uint32_t kP, Asks kAsks>
DROVER_INLINE void attention_rows(const float* x, uint64_t x_stride, uint32_t rows, const typename Load::Element* w,
                                  uint64_t w_stride, uint32_t depth, float* acc, uint64_t acc_stride, int64_t ahead) {
  using Element = typename Load::Element;
  uint32_t r = 0;
  const auto take = [&]<uint32_t kR>() DROVER_LAMBDA {
    for (; r + kR <= rows; r += kR) {
      const float* from = x + r * x_stride;
      float* to = acc + r * acc_stride;
      if constexpr (kAsks != Asks::kNothing) {
        const PageAhead<16 * sizeof(Element), kP, kAsks == Asks::kPageAndNear> next{reinterpret_cast<const uint8_t*>(w),
                                                                                    w_stride * sizeof(Element), ahead};
        float_tile<kR, kP, Load>(from, x_stride, w, w_stride, depth, to, acc_stride, next);
      } else {
        float_tile<kR, kP, Load>(from, x_stride, w, w_stride, depth, to, acc_stride);
      }
    }
  };
  if constexpr (kRows > 4) take.template operator()<kRows>();
  take.template operator()<4>();
  take.template operator()<2>();
  take.template operator()<1>();
}

// acc [rows, panels * 16] += x [rows, depth] * panels [panels][depth][16]
template <typename Load, uint32_t kRows, uint32_t kP, Asks kAsks>
void attention_panels(const float* x, uint64_t x_stride, uint32_t rows, const typename Load::Element* w,
                      uint64_t w_stride, uint32_t panels, uint32_t depth, float* acc, uint64_t acc_stride,
                      int64_t ahead) {
  uint32_t p = 0;
  for (; p + kP <= panels; p += kP) {
    attention_rows<Load, kRows, kP, kAsks>(x, x_stride, rows, w + p * w_stride, w_stride, depth, acc + p * 16,
                                           acc_stride, ahead);
  }
  if constexpr (kP > 1) {
    for (; p < panels; p++) {
      attention_rows<Load, kRows, 1, kAsks>(x, x_stride, rows, w + p * w_stride, w_stride, depth, acc + p * 16,
                                            acc_stride, ahead);
    }
  }
}

// The same for `vectors` that are few or many. scratch: panels * depth * 16 floats, for what many have converted.
// kCache: w lies in the cache, and `ahead` bytes behind it the page that comes next; follows: see GemmArgs.
template <typename Load, bool kCache>
DROVER_INLINE void attention_product(const float* x, uint64_t x_stride, uint32_t vectors,
                                     const typename Load::Element* w, uint64_t w_stride, uint32_t panels,
                                     uint32_t depth, float* acc, uint64_t acc_stride, int64_t ahead, bool follows,
                                     bool few, float* scratch) {
  const auto take = [&]<Asks kAsks>() DROVER_LAMBDA {
    attention_panels<Load, 4, kFewPanels, kAsks>(x, x_stride, vectors, w, w_stride, panels, depth, acc, acc_stride,
                                                 ahead);
  };
  if (few && !kCache) return take.template operator()<Asks::kNothing>();
  if constexpr (kCache) {
    if (few && follows) return take.template operator()<Asks::kPage>();
    if (few) return take.template operator()<Asks::kPageAndNear>();
  }
  const float* wide = scratch;
  uint64_t wide_stride = uint64_t{depth} * 16;
  if constexpr (sizeof(*w) == sizeof(float)) {
    wide = w;
    wide_stride = w_stride;
  } else {
    for (uint32_t p = 0; p < panels; p++) {
      for (uint32_t i = 0; i < depth; i++)
        f_store(scratch + p * wide_stride + i * 16, Load::load(w + p * w_stride + i * 16));
    }
  }
  attention_panels<LoadF32, kManyVectors, kManyPanels, Asks::kNothing>(x, x_stride, vectors, wide, wide_stride, panels,
                                                                       depth, acc, acc_stride, 0);
}

}  // namespace
}  // namespace drover
