#pragma once
#include "workloads/source.h"

namespace epsim {

/// Experts that are hotter than the others for some time.
struct Hot {
  int experts = 0;
  float log_factor = 0;  ///< added to their log-popularity
};

/// Reads `hot` (a sixteenth of the experts, at least 1, where it is not given) and `factor`.
Hot read_hot(Params& params, const SourceContext* context);

}  // namespace epsim
