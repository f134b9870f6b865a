#pragma once
#include <string>

#include "analysis/traffic.h"

namespace epsim {

/// One line that says what limits a layer: the longest of its three stages, and in that stage the link, the rank or the fixed cost that explains most of the time.
/// `metrics` has its stage times and busiest links already.
std::string bottleneck(const Experiment& experiment, const LayerRun& run, const LayerMetrics& metrics, const Traffic& dispatch, const Traffic& combine);

}  // namespace epsim
