#pragma once
#include <cstdint>
#include <span>

namespace epsim {

/// Gate logits of tokens [first, first+count): log_popularity[e] plus Gumbel noise, in blocks (workloads/scores.h). The best expert of a token then follows
/// the popularity exactly, and the ranking is Plackett-Luce (Yellott 1977). A value depends on (seed, layer, token, expert) alone and has the same bits on
/// every machine.
void gumbel_logits(std::uint64_t seed, int layer, std::int64_t first, std::int64_t count, std::span<const float> log_popularity, std::span<float> logits);

}  // namespace epsim
