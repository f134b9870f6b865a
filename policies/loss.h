#pragma once
#include "policies/routed.h"

namespace epsim {

/// A routed batch as losses see it.
struct LossBatch {
  const GateBatch& gate;
  const Routed& routed;
  const Router& router;
  std::span<const float> earlier = {};  ///< [E] tokens that each expert was chosen by in earlier steps, summed; absent: none
  int earlier_steps = 0;
};

/// What training adds so that experts are used evenly.
struct Loss {
  std::string_view summary;
  /// The loss, its coefficient included; adds dL/dlogits [T][E] to `d_logits` unless that is empty. Choices, drops and counts are constant.
  std::function<double(const LossBatch& batch, std::span<float> d_logits)> value;
  /// The bias [E] that the next step's gate chooses by, given this step's; null for losses that leave it alone.
  std::function<std::vector<float>(const LossBatch& batch, std::span<const float> bias)> next_bias;
};

using LossCatalog = Catalog<Loss, const Shape*>;
LossCatalog builtin_losses();

/// bias + rate sign(mean - count): an expert exactly at the mean keeps its bias (Wang et al. 2024, "Auxiliary-loss-free load balancing"; Megatron-LM `get_updated_expert_bias`).
std::vector<float> updated_bias(std::span<const std::int64_t> counts, std::span<const float> bias, double rate);

}  // namespace epsim
