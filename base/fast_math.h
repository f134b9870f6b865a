#pragma once
#include <bit>
#include <cstdint>

// Elementary functions as plain IEEE single precision operations: the same bits on every machine, whatever its maths library, and loops over them vectorise.
namespace epsim {

/// exp(x), relative error below 4e-7; x is clamped to [-87, 88].
inline float fast_exp(float x) {
  x = x < -87.0F ? -87.0F : x;
  x = x > 88.0F ? 88.0F : x;
  const float shifted = x * 1.44269504F + 0x1.8p23F;  // rounds to the nearest integer in the low bits
  const float n = shifted - 0x1.8p23F;
  const float r = (x - n * 0.693359375F) + n * 2.12194440e-4F;  // log 2 in two parts: the first product is exact
  float p = 0.0013941111F;
  p = p * r + 0.0083751264F;
  p = p * r + 0.0416663529F;
  p = p * r + 0.166664155F;
  p = p * r + 0.5F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  return std::bit_cast<float>(std::bit_cast<std::int32_t>(p) + (std::bit_cast<std::int32_t>(shifted) << 23));
}

/// 1 / (1 + exp(-x)).
inline float fast_sigmoid(float x) { return 1.0F / (1.0F + fast_exp(-x)); }

}  // namespace epsim
