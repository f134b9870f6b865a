#pragma once
#include <span>
#include <vector>

#include "policies/gate_batch.h"

namespace epsim {

/// What Megatron-LM's quantile balancing makes of `beta` [E], which it takes from logits before the top_k are chosen: with alpha of a token the (k+1)-th largest of its logits less beta, an expert's new beta is
/// the (T k / E + 1)-th largest of its logits less alpha.
std::vector<float> quantile_beta(const GateBatch& batch, int top_k, std::span<const float> beta);

}  // namespace epsim
