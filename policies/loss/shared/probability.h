#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "policies/gate_batch.h"

namespace epsim {

/// Scores of one token over which losses sum, in double: softmax, or sigmoids divided by their sum (Megatron-LM's, for sigmoid gates).
void loss_scores(bool sigmoid, std::span<const float> logits, std::span<double> scores);
/// Adds what dL/dscores [E] of a token gives of dL/dlogits.
void loss_scores_backward(bool sigmoid, std::span<const float> logits, std::span<const double> scores, std::span<const double> d_scores, std::span<float> d_logits);

/// The squared coefficient of variation of values, with the variance over n or over n - 1, and its derivative by each value in `d` unless that is empty.
double squared_variation(std::span<const double> values, bool sample, std::span<double> d);

/// Whether losses count a token.
inline bool counts(const GateBatch& batch, std::int64_t token) { return batch.counted.empty() || batch.counted[static_cast<std::size_t>(token)] != 0; }

}  // namespace epsim
