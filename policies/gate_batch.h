#pragma once
#include <cstdint>
#include <span>

namespace epsim {

/// What a gate sees of some tokens in one layer. Spans that are empty are absent.
struct GateBatch {
  std::int64_t tokens = 0;
  int experts = 0;                              ///< columns of `logits`: the model's experts, and behind them those that compute nothing
  std::span<const float> logits;                ///< [T][E]
  std::span<const std::int64_t> token_ids;      ///< [T] in the vocabulary
  std::span<const float> noise;                 ///< [T][E] what a noisy gate's second matrix gives (Shazeer's x W_noise)
  std::span<const float> bias;                  ///< [E] added to scores for choosing only; takes the place of the router's own
  std::span<const std::int64_t> first_of_rank;  ///< [R+1] the home ranks' tokens, from 0; absent: one rank has them all
  std::span<const std::uint8_t> counted;        ///< [T] 0 where losses leave the token out; absent: none
  std::uint64_t seed = 0;
  int layer = 0;
  std::int64_t first_token = 0;                 ///< global number of the first token: random numbers are keyed by it
  bool training = false;                        ///< noise is drawn, and balanced assignments are made, in training only

  int ranks() const { return first_of_rank.empty() ? 1 : static_cast<int>(first_of_rank.size()) - 1; }
  std::span<const float> row(std::int64_t token) const { return logits.subspan(static_cast<std::size_t>(token * experts), static_cast<std::size_t>(experts)); }
  /// The tokens [first, last) as a batch of one rank.
  GateBatch part(std::int64_t first, std::int64_t last) const {
    GateBatch b = *this;
    const auto cut = [&](auto span, std::int64_t width) {
      return span.empty() ? span : span.subspan(static_cast<std::size_t>(first * width), static_cast<std::size_t>((last - first) * width));
    };
    b.tokens = last - first, b.first_token = first_token + first, b.first_of_rank = {};
    b.logits = cut(logits, experts), b.token_ids = cut(token_ids, 1), b.noise = cut(noise, experts), b.counted = cut(counted, 1);
    return b;
  }
};

}  // namespace epsim
