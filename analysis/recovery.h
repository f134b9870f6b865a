#pragma once
#include <string>
#include <vector>

#include "analysis/measure.h"

namespace epsim {

/// What an event cost: its batches are those from it up to the next event, or to the end.
struct Recovery {
  int batch = 0;
  std::string what;           ///< "rank 3 fails"
  int ranks_up = 0;
  Bytes moved_bytes = 0, restored_bytes = 0;  ///< before its first batch, whatever for: ordinary rebalancing, too
  double waited_s = 0;        ///< likewise, all layers
  double before_s = 0;        ///< time of the batch before, waits included; 0 where there is none
  double settled_s = 0;       ///< median time of its batches, waits included
  /// Batches that take, waits included, more than 5 % longer than the settled time, from its first on.
  int recovery_batches = 0;
  double recovery_s = 0;      ///< what those batches take beyond the settled time
};

/// One for each event of the experiment that a batch of the run comes after, in order.
std::vector<Recovery> recoveries(const Experiment& experiment, const RunMetrics& run);

}  // namespace epsim
