#include "tuning.h"

#include <atomic>

#include "cpu.h"
#include "status.h"

namespace drover {
namespace {

// Blocks of the float GEMM whose sums, and whose rows' part in a chunk of the depth, take half of the second-level
// cache. Fewer panels cost copies of that part, fewer rows reread weights.
drover_tuning suggested() {
  const uint64_t l2 = machine().info.l2_bytes, room = (l2 == 0 ? 1u << 20 : l2) / 2;
  // Intel's cores have more requests to memory under way into the second-level cache than into the first, and do not
  // find the way by themselves as well as Zen 4's (panels.h).
  drover_tuning t{machine().intel ? 2u : 1u, kGemmFloatRows, kGemmFloatPanels, room};
  const auto bytes = [&] {
    return uint64_t{t.float_rows} * (t.float_panels * kPanel + kGemmFloatDepth) * sizeof(float);
  };
  while (bytes() > room && t.float_panels > 8)
    (t.float_rows >= 8 * t.float_panels ? t.float_rows : t.float_panels) /= 2;
  return t;
}

struct Shared {
  std::atomic<uint32_t> requests, float_rows, float_panels;
  std::atomic<uint64_t> byte_rows;
  explicit Shared(const drover_tuning& t)
      : requests(t.requests), float_rows(t.float_rows), float_panels(t.float_panels), byte_rows(t.byte_rows) {}
};
Shared& shared() {
  static Shared instance(suggested());
  return instance;
}

}  // namespace

drover_tuning tuning() {
  const Shared& s = shared();
  constexpr auto order = std::memory_order_relaxed;
  return {s.requests.load(order), s.float_rows.load(order), s.float_panels.load(order), s.byte_rows.load(order)};
}

drover_code set_tuning(const drover_tuning& t, drover_error* error) {
  const auto no = [&](const char* what, uint64_t found, uint64_t expected) {
    return fail(error, DROVER_RANGE, -1, static_cast<int64_t>(found), static_cast<int64_t>(expected), "tuning: %s",
                what);
  };
  if (t.requests != 1 && t.requests != 2) return no("one or two requests", t.requests, 2);
  if (t.float_rows < 16 || t.float_rows > kGemmFloatRows) return no("rows of a block", t.float_rows, kGemmFloatRows);
  if (t.float_panels < 4 || t.float_panels > kGemmFloatPanels) {
    return no("panels of a block", t.float_panels, kGemmFloatPanels);
  }
  if (t.byte_rows > uint64_t{1} << 40) return no("bytes of rows", t.byte_rows, uint64_t{1} << 40);
  Shared& s = shared();
  s.requests = t.requests;
  s.float_rows = t.float_rows;
  s.float_panels = t.float_panels;
  s.byte_rows = t.byte_rows;
  return DROVER_OK;
}

}  // namespace drover
