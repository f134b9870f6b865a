#pragma once
#include <cstdint>
#include <vector>

#include "sim/experiment.h"
#include "sim/moe/expert.h"
#include "sim/moe/planned.h"

namespace epsim {

/// The prices of what `execute` really moves and computes: float32 rows, no extra bytes, the real experts' sizes.
Pricing execute_pricing(const Experiment& experiment);

/// The vectors [tokens][hidden] of tokens [first, last) of the batch that is executed.
std::vector<float> token_vectors(const Experiment& experiment, std::int64_t first, std::int64_t last);
/// The gradient to their results: standard normal numbers from the tokens' own random streams of the layer.
std::vector<float> gradient_vectors(const Experiment& experiment, int layer, std::int64_t first, std::int64_t last);
/// Adds an expert of a layer, or the shared one, with its seeded weights.
void load_expert(const Experiment& experiment, int layer, int expert, ExpertBank& bank, ExpertBank::Passes passes);
/// The experts of a layer that compute nothing, with their seeded weights.
IdleBank idle_bank(const Experiment& experiment, int layer);

}  // namespace epsim
