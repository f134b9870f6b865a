#include "workloads/noise.h"

#include <bit>

#include "base/rng.h"
#include "base/vectorise.h"
#include "workloads/scores.h"

namespace epsim {
namespace {

/// x y + z with one rounding, the same on every machine; one instruction on those of the last ten years.
inline float fused(float x, float y, float z) { return __builtin_fmaf(x, y, z); }

/// Exponential noise (mean 1) from 31 random bits, as log(2) k + f: k, the leading zeros, is geometric, and f has the density that is left within one halving
/// (von Neumann's decomposition). Only f needs a logarithm, and that of a number in (1/2, 1): a minimax polynomial, relative error below 5e-5.
inline float exponential(std::uint32_t word) {
  const std::uint32_t odd = (word & 0x7fffff00U) | 0x80U;  // fits a float exactly, and f is never 0
  const auto bits = std::bit_cast<std::int32_t>(static_cast<float>(static_cast<std::int32_t>(odd)));
  const float v = std::bit_cast<float>((bits & 0x7fffff) | 0x3f800000) - 1.0F;
  float p = 0.0232873287F;
  p = fused(p, v, -0.00361377393F);
  p = fused(p, v, 0.0494753224F);
  p = fused(p, v, 0.123945369F);
  p = fused(p, v, 0.500022183F);  // -log(1 - v/2) / v
  constexpr float kLog2 = 0.693147181F;
  return fused(v, p, static_cast<float>(157 - (bits >> 23)) * kLog2);
}

/// Two keys of each token of a block.
struct Keys {
  std::uint32_t first[kBlockTokens], second[kBlockTokens];
};

/// A block of tokens. A Philox block per expert would cost more than all else together, so only a token's two keys come from Philox; the experts' words are
/// those of a Weyl sequence that starts at the first key, folded and multiplied by the second key, which is odd.
EPSIM_VECTORISE void draw_block(const Keys& keys, std::int64_t experts, const float* __restrict scales, float* __restrict scores) {
  for (std::int64_t e = 0; e < experts; ++e)
    for (std::int64_t t = 0; t < kBlockTokens; ++t) {
      const std::uint32_t weyl = keys.first[t] + static_cast<std::uint32_t>(e) * 0x9E3779B9U;
      scores[e * kBlockTokens + t] = scales[e] * exponential((weyl ^ (weyl >> 16)) * keys.second[t]);
    }
}

}  // namespace

void draw_odds(std::uint64_t seed, int layer, std::int64_t first, std::int64_t count, std::span<const float> scales, std::span<float> scores) {
  const auto experts = static_cast<std::int64_t>(scales.size());
  for (std::int64_t block = 0; block < count; block += kBlockTokens) {
    Keys keys;
    std::uint64_t pair[2] = {};  // of two tokens: what one Philox block holds
    for (std::int64_t t = 0; t < kBlockTokens; ++t) {
      const auto token = static_cast<std::uint64_t>(first + block + t);
      if (t == 0 || token % 2 == 0) {
        Rng rng(seed, Stream::scores, token / 2, static_cast<std::uint32_t>(layer));
        for (std::uint64_t& bits : pair) bits = rng.bits();
      }
      keys.first[t] = static_cast<std::uint32_t>(pair[token % 2]), keys.second[t] = static_cast<std::uint32_t>(pair[token % 2] >> 32) | 1U;
    }
    draw_block(keys, experts, scales.data(), scores.data() + score_index(block, 0, experts));
  }
}

}  // namespace epsim
