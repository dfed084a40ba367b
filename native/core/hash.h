// A hash that tells contents apart which nobody has crafted to be alike: two chains of 64 bits, not cryptographic.
#ifndef DROVER_CORE_HASH_H_
#define DROVER_CORE_HASH_H_

#include <cstdint>
#include <cstring>

namespace drover {

class Hash {
 public:
  void add(const void* data, uint64_t bytes) {
    const uint8_t* from = static_cast<const uint8_t*>(data);
    number(bytes);
    for (; bytes >= 8; from += 8, bytes -= 8) word(from, 8);
    if (bytes != 0) word(from, bytes);
  }
  void number(uint64_t value) {
    // Odd factors, and shifts that bring the high bits, which depend on all others, down to the low ones.
    first_ = (first_ ^ value) * 0x9e3779b97f4a7c15u;
    first_ ^= first_ >> 32;
    second_ = (second_ + value) * 0xd1342543de82ef95u;
    second_ ^= second_ >> 29;
  }
  uint64_t first() const { return first_ ^ first_ >> 31; }
  uint64_t second() const { return second_ ^ second_ >> 33; }

 private:
  void word(const uint8_t* from, uint64_t bytes) {
    uint64_t value = 0;
    std::memcpy(&value, from, bytes);
    number(value);
  }
  uint64_t first_ = 0x243f6a8885a308d3u, second_ = 0x13198a2e03707344u;  // digits of pi
};

}  // namespace drover

#endif  // DROVER_CORE_HASH_H_
