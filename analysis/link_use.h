#pragma once
#include <string>
#include <vector>

#include "base/matrix.h"
#include "sim/timeline.h"
#include "topology/topology.h"

namespace epsim {

/// What one exchange put on each link, in all and over time. Bytes in all are exact counts. Bytes over time are an estimate: a message's bytes count as spread evenly over the time it is under way, from its
/// begin to its arrival less the latency of its path, on every link of the path at once; while rates change within that time, or a message waits before it moves, the truth is less even.
struct LinkUse {
  double begin_s = 0, end_s = 0;        ///< the first message begins, the last has arrived; both 0 where there are none
  std::vector<double> bytes;            ///< [links]
  Matrix<double> bytes_over_time;       ///< [links][bins], equal parts of begin_s to end_s; a row adds up to `bytes`
  std::vector<double> bandwidth;        ///< [links] bytes/s

  double time_s() const { return end_s - begin_s; }
  /// Bytes / (bandwidth x time); 0 where no time passes.
  double utilisation(std::size_t link) const;
  /// The same in each bin: [bins].
  std::vector<double> utilisation_over_time(std::size_t link) const;
};

/// The use of links by the transfers of a stage, over their own span of time. `timeline` is one at Detail::flow, of `schedule`. Throws std::logic_error where `bins` is below 1. O(messages x path x bins).
LinkUse link_use(const Timeline& timeline, const Schedule& schedule, Stage stage, const Topology& topology, int bins);

/// The use of all links of a tier together.
struct TierUse {
  std::string tier;
  std::vector<double> mean, most;  ///< [bins] utilisation: bytes of the tier / its bandwidth; of the link used most in that bin
  double mean_in_all = 0;          ///< over the whole time
};
/// Tiers in the order of their first links.
std::vector<TierUse> tier_use(const LinkUse& use, const Topology& topology);

}  // namespace epsim
