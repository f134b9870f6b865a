#pragma once
#include <cstddef>
#include <cstdint>

namespace epsim {

/// Scores of tokens for experts come in blocks of this many tokens, expert by expert: [blocks][experts][kBlockTokens]. What is done to one value is then done to
/// those of 16 neighbours, by vectors of any width and without moving values between their lanes.
inline constexpr std::int64_t kBlockTokens = 16;

/// What the score of an expert says; a larger one is better in either form.
enum class ScoreForm {
  logits,  ///< gate logits
  odds     ///< the odds against the expert, negated: -exp(-logit). Its sigmoid is 1/(1 - score): whoever draws odds spares others logarithms and exponentials
};

/// Where the score of the token-th of some tokens for an expert lies.
inline std::size_t score_index(std::int64_t token, std::int64_t expert, std::int64_t experts) {
  return static_cast<std::size_t>((token / kBlockTokens * experts + expert) * kBlockTokens + token % kBlockTokens);
}

/// Values in the blocks of some tokens; those behind the last token mean nothing.
inline std::size_t score_count(std::int64_t tokens, std::int64_t experts) {
  return static_cast<std::size_t>((tokens + kBlockTokens - 1) / kBlockTokens * experts * kBlockTokens);
}

}  // namespace epsim
