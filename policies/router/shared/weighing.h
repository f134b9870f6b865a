#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "policies/gate_batch.h"
#include "policies/routing.h"

namespace epsim {

/// How combine weights follow from a token's logits and its choices.
struct Weighing {
  /// Of a chosen expert: softmax over all experts, softmax over the chosen ones, sigmoid, or the square root of the softplus (DeepSeek-V4).
  enum class Score { softmax, softmax_chosen, sigmoid, sqrt_softplus } score = Score::softmax;
  bool renormalise = true;  ///< scores are divided by their norm plus `eps`
  double eps = 0;           ///< Megatron and transformers add 1e-20
  double norm = 1;          ///< of which p-norm (MegaBlocks' normalize_p)
  double scale = 1;
  std::vector<std::uint8_t> nothing = {};  ///< [E] 1: experts that give nothing, so that their weight is 0 and others are renormalised without them (MoE++); empty: none
};

/// Weights [k] of a token's choices; a choice of -1 weighs 0.
void weigh(const Weighing& rule, std::span<const float> logits, std::span<const std::int32_t> experts, std::span<float> weights);
/// Adds dL/dlogits [E] of one token, given dL/dweights [k].
void weigh_backward(const Weighing& rule, std::span<const float> logits, std::span<const std::int32_t> experts, std::span<const float> d_weights, std::span<float> d_logits);

/// The logits of a token that a gate goes by: those given, or with noise, in `room`. `slope` [E] may become what they grow with the given ones, where that is not 1.
using LogitsOf = std::function<std::span<const float>(const GateBatch& batch, std::int64_t token, std::vector<float>& room, std::vector<float>& slope)>;

/// Fills in the `weigh`, `backward` and, where weights are shares of a sum, the `prioritise` of a router whose weights are such, of the given logits or of others.
void weigh_by(Router& router, Weighing rule, LogitsOf logits = {});
/// Fills in `choose`, token by token: `pick` writes the ids of one token, best first and -1 where none is, given its logits; `weigh_by` must have been called.
void choose_by_token(Router& router, std::function<void(const GateBatch& batch, std::int64_t token, std::span<const float> logits, std::span<std::int32_t> ids)> pick, LogitsOf logits = {});

/// Scores of one token's experts, in double.
void scores_of(Weighing::Score score, std::span<const float> logits, std::span<double> scores);
/// The ids of the k largest values, largest first, ties to the lowest id. Values of minus infinity are never taken: -1 stands in their place.
void best_of(std::span<const double> values, std::span<std::int32_t> ids);

}  // namespace epsim
