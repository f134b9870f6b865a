#pragma once
#include <memory>
#include <string>

#include "base/check.h"
#include "sim/train/train.h"

namespace epsim {

/// A training in the middle as the bytes of an .npz: all that the next step depends on (after `gather_experts`), what was recorded, and the settings and text that it holds for.
std::string checkpoint(const Training& training, const TrainState& state);
/// Reads it again. Throws InputError where the file is no checkpoint, or one of other settings or another text.
TrainState read_checkpoint(const Training& training, std::shared_ptr<const SourceText> file);

/// What was recorded, a line a step: step, loss, cross_entropy, gradient_norm, drop_rate, imbalance, unused_experts, held_out_loss, similarity (the last two empty where nobody looked).
std::string steps_csv(const TrainState& state);
/// A line a step and layer: step, layer, choices and dropped of all experts, and choices of each, e0, e1, ..., and zero0, identity0, constant0, ... of those that compute nothing.
std::string experts_csv(const Training& training, const TrainState& state);

}  // namespace epsim
