// Memory for checks of kernels: exact sizes, so that AddressSanitizer sees one element past the end, and 0xff bytes at
// first (NaN as floats), so that what nobody wrote is not mistaken for a zero.
#ifndef DROVER_TEST_BUFFERS_H_
#define DROVER_TEST_BUFFERS_H_

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "check.h"
#include "kernels/kernels.h"

template <typename T>
class Buffer {
 public:
  explicit Buffer(uint64_t count) : count_(count) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, bytes() == 0 ? 1 : bytes()) != 0) std::abort();
    data_ = static_cast<T*>(memory);
    std::memset(memory, 0xff, bytes());
  }
  Buffer(const Buffer& other) : Buffer(other.count_) { std::memcpy(data_, other.data_, bytes()); }
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }
  T* data() { return data_; }
  const T* data() const { return data_; }
  uint64_t count() const { return count_; }
  uint64_t bytes() const { return count_ * sizeof(T); }
  T& operator[](uint64_t i) { return data_[i]; }
  const T& operator[](uint64_t i) const { return data_[i]; }

 private:
  T* data_;
  uint64_t count_;
};

inline Buffer<float> normals(uint64_t count, Random& random, float scale = 1.0f) {
  Buffer<float> values(count);
  for (uint64_t i = 0; i < count; i++) values[i] = random.normal() * scale;
  return values;
}
inline Buffer<uint8_t> random_bytes(uint64_t count, Random& random) {
  Buffer<uint8_t> bytes(count);
  for (uint64_t i = 0; i < count; i++) bytes[i] = static_cast<uint8_t>(random.next());
  return bytes;
}

// Equal bits; any NaN equals any other, as which operand's payload survives is not part of the contract.
inline bool same_floats(const float* a, const float* b, uint64_t count) {
  for (uint64_t i = 0; i < count; i++) {
    if (std::memcmp(a + i, b + i, sizeof(float)) != 0 && !(a[i] != a[i] && b[i] != b[i])) return false;
  }
  return true;
}

inline const char* name_of(drover::DType dtype) {
  static const char* const names[] = {
#define DROVER_DTYPE(name, elements, bytes) #name,
#include "kernels/dtypes.def"
#undef DROVER_DTYPE
  };
  return names[static_cast<uint32_t>(dtype)];
}
// The formats that weights may have come first.
inline constexpr uint32_t kWeightTypes = static_cast<uint32_t>(drover::DType::u32);

#endif  // DROVER_TEST_BUFFERS_H_
