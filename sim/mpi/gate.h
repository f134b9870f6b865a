#pragma once
#include <span>
#include <vector>

#include "sim/experiment.h"

namespace epsim {

/// Whether gradients pass the gate of an experiment's layers: its source has a real one, and weights follow from its logits.
bool gate_has_gradient(const Experiment& experiment);

/// The gate's gradient [hidden][columns] from one rank's tokens, summed in chunks of kChunkRows, given those of the weights of all choices, `d_weight` [T][k]. Adds the gate's part to `dx` [tokens][hidden] of the rank's tokens.
/// `weights` [T][k] are those before any drop; choices and drops are constant.
std::vector<float> gate_backward(const Experiment& experiment, const Plan& plan, const std::vector<float>& weights, const std::vector<float>& d_weight, Rank rank, std::span<float> dx);

}  // namespace epsim
