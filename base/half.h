#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

namespace epsim {

/// A number of 16 bits as files hold it, not yet widened: IEEE 754 binary16 (NumPy's `f2`, `F16`), or bfloat16 (`BF16`), the upper half of a float.
struct Half {
  std::uint16_t bits;
  explicit operator double() const {
    const int exponent = bits >> 10 & 31;
    const double fraction = bits & 1023, size = exponent == 31 ? (fraction > 0 ? NAN : INFINITY) : exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(fraction + 1024, exponent - 25);
    return bits >> 15 ? -size : size;
  }
};
struct BFloat16 {
  std::uint16_t bits;
  explicit operator double() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};

}  // namespace epsim
