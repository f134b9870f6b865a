#pragma once
#include <cstdint>
#include <span>

namespace epsim {

/// Scores of tokens [first, first+count), as odds in blocks (workloads/scores.h): exponential random numbers (mean 1) times `scales[e]`, which is
/// -1/popularity, so that logits are log(popularity) plus Gumbel noise. The best expert of a token then follows the popularity exactly, and the ranking is Plackett-Luce
/// (Yellott 1977). A value depends on (seed, layer, token, expert) alone and has the same bits on every machine.
void draw_odds(std::uint64_t seed, int layer, std::int64_t first, std::int64_t count, std::span<const float> scales, std::span<float> scores);

}  // namespace epsim
