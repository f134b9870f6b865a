#pragma once
#include <vector>

#include "analysis/measure.h"

namespace epsim {

/// Bytes each rank needs for a layer. Weights: every slot's expert and the shared expert in the weights' precision. Activations: home tokens are held throughout; what a
/// phase delivers or computes is held until the last phase that waits for it is over; the fullest phase counts. Home tokens, kernel outputs and sums take a combine row each,
/// travelling rows their size on the wire. A kernel's own intermediate values are not counted.
std::vector<MemoryUse> memory_use(const Experiment& experiment, const LayerRun& run);

}  // namespace epsim
