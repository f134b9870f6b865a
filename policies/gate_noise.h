#pragma once
#include <vector>

#include "policies/gate_batch.h"

namespace epsim {

/// The width of a token's noise for each expert: softplus(x W_noise) + 0.01 (Shazeer et al. 2017); x W_noise is 0 where the batch does not bring it.
std::vector<double> shazeer_width(const GateBatch& batch, std::int64_t token);
/// A token's logits with noise of a width for each expert; without it outside training.
std::vector<float> noisy_logits(const GateBatch& batch, std::int64_t token, const std::vector<double>& width);
/// The same with noise of Shazeer's width.
std::vector<float> shazeer_logits(const GateBatch& batch, std::int64_t token);

}  // namespace epsim
