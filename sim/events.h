#pragma once
#include <utility>
#include <vector>

#include "base/params.h"

namespace epsim {

/// What happens to ranks before a batch begins.
struct Event {
  Location at;  ///< where it is written
  int batch = 0;
  std::vector<int> fail, join;               ///< ranks, ascending
  std::vector<std::pair<int, double>> slow;  ///< ranks, each with its speed from then on
};

/// Ranks that are not what they were: how fast they compute, when they fail and come back, and what becomes of what they held.
struct Changes {
  std::vector<double> speeds;  ///< in parts of the device's; a shorter list repeats; empty: all alike
  std::vector<Event> events;   ///< by batch; of one batch in the order of the file
  enum class Tokens {
    spread,  ///< go to the ranks that are up, equally many to each
    lost     ///< are gone
  } tokens = Tokens::spread;   ///< of ranks that are down
  Bandwidth restore = 0;       ///< bytes/s at which a rank that is up reads weights that no other rank holds any more
};

/// Reads `speeds`, `events` and `failure`. Which ranks there are is checked by `eras_of` (sim/era.h). A knob of `failure` without a rank that fails is an error.
Changes read_changes(Params& top, std::vector<ParamDoc>& docs);

}  // namespace epsim
