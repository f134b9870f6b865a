#pragma once
#include <vector>

#include "analysis/measure.h"

namespace epsim {

/// Plays every batch of every experiment, with progress on a terminal's stderr: [experiments]. Experiments with the same choices are routed once.
std::vector<RunMetrics> play_all(const std::vector<Experiment>& experiments);

}  // namespace epsim
