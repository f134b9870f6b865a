#pragma once
#include <bit>
#include <cstdint>

namespace epsim {

/// The upper half of a float32, which is a bfloat16.
using Bfloat16 = std::uint16_t;

/// The nearest bfloat16, ties to even; a NaN stays one. Always inline, for loops that are compiled for several vector widths.
inline __attribute__((always_inline)) Bfloat16 rounded(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t nearest = bits + 0x7fff + (bits >> 16 & 1);
  return static_cast<Bfloat16>((x != x ? bits | 0x400000 : nearest) >> 16);
}
inline __attribute__((always_inline)) float widened(Bfloat16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x) << 16); }

/// to[i] = from[i], rounded.
void round_to(const float* from, Bfloat16* to, std::int64_t count);
/// to[i] = scale * from[i], rounded.
void round_scaled(float scale, const float* from, Bfloat16* to, std::int64_t count);

}  // namespace epsim
