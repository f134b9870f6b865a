#include "workloads/noise.h"

#include <bit>

#include "base/rng.h"
#include "base/vectorise.h"

namespace epsim {
namespace {

/// Exponential noise (mean 1) from 31 random bits, as log(2) k + f: k, the leading zeros, is geometric, and f has the density that is left within one halving
/// (von Neumann's decomposition). Only f needs a logarithm, and that of a number in (1/2, 1): a polynomial, relative error below 1e-5.
inline float exponential(std::uint32_t word) {
  const std::uint32_t odd = (word & 0x7fffff00U) | 0x80U;  // fits a float exactly, and f is never 0
  const auto bits = std::bit_cast<std::int32_t>(static_cast<float>(static_cast<std::int32_t>(odd)));
  const float v = std::bit_cast<float>((bits & 0x7fffff) | 0x3f800000) - 1.0F;
  float p = 0.0129594949F;
  p = p * v - 0.00906971944F;
  p = p * v + 0.0246516667F;
  p = p * v + 0.0394029288F;
  p = p * v + 0.125200492F;
  p = p * v + 0.499997198F;  // -log(1 - v/2) / v
  constexpr float kLog2 = 0.693147181F;
  return (157 * kLog2 - static_cast<float>(bits >> 23) * kLog2) + v * p;
}

/// log(x) for normal x above 0, absolute error below 1e-5 for x in [1e-8, 20]: the straight line between powers of two, plus t (1-t) r(t).
inline float logarithm(float x) {
  const auto bits = std::bit_cast<std::int32_t>(x);
  const float t = std::bit_cast<float>((bits & 0x7fffff) | 0x3f800000) - 1.0F;
  float r = 0.0178078263F;
  r = r * t - 0.067375177F;
  r = r * t + 0.12760897F;
  r = r * t - 0.191703371F;
  r = r * t + 0.306824422F;
  return static_cast<float>(bits - 0x3f800000) * (0.693147181F * 0x1p-23F) + (t - t * t) * r;
}

/// One token's row. A Philox block per expert would cost more than all else together, so only the token's two keys come from Philox; the experts' words come
/// from a Weyl sequence that starts at the first key, through an integer finaliser with the second key.
EPSIM_VECTORISE void gumbel_row(std::uint32_t key0, std::uint32_t key1, const float* __restrict log_popularity, float* __restrict logits,
                                std::int32_t experts) {
  for (std::int32_t e = 0; e < experts; ++e) {
    std::uint32_t h = static_cast<std::uint32_t>(e) * 0x9E3779B9U + key0;
    h = (h ^ (h >> 15) ^ key1) * 0x7feb352dU;
    h = (h ^ (h >> 15)) * 0x846ca68bU;
    logits[e] = log_popularity[e] - logarithm(exponential(h));
  }
}

}  // namespace

void gumbel_logits(std::uint64_t seed, int layer, std::int64_t first, std::int64_t count, std::span<const float> log_popularity, std::span<float> logits) {
  const std::size_t experts = log_popularity.size();
  for (std::int64_t i = 0; i < count; ++i) {
    Rng rng(seed, Stream::scores, static_cast<std::uint64_t>(first + i), static_cast<std::uint32_t>(layer));
    const std::uint64_t keys = rng.bits();
    gumbel_row(static_cast<std::uint32_t>(keys), static_cast<std::uint32_t>(keys >> 32), log_popularity.data(),
               logits.data() + static_cast<std::size_t>(i) * experts, static_cast<std::int32_t>(experts));
  }
}

}  // namespace epsim
