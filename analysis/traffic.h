#pragma once
#include <vector>

#include "analysis/measure.h"

namespace epsim {

/// What one stage's transfers put on the machine, from the schedule alone: exact counts, no time.
struct Traffic {
  Matrix<std::int64_t> rank_bytes;  ///< [R][R]; diagonal 0
  Matrix<std::int64_t> node_bytes;  ///< [N][N]; the diagonal is between ranks of one node
  std::vector<double> link_bytes;   ///< [links]
  double latency_s = 0;             ///< the longest path latency of each transfer phase, summed along the longest chain of phases that wait for each other

  std::int64_t bytes() const;             ///< between ranks
  std::int64_t cross_node_bytes() const;  ///< between nodes
};
Traffic traffic(const Schedule& schedule, Stage stage, const Topology& topology);

/// The link of a topology that carries `bytes` [links] longest.
BusiestLink busiest_link(const std::vector<double>& bytes, const Topology& topology);
/// The links whose bytes / bandwidth are within 1 % of the largest: what holds an exchange back. Ascending; none where nothing moves.
std::vector<std::int32_t> bottleneck_links(const std::vector<double>& bytes, const Topology& topology);

/// From the first message of a stage that begins to the last that has arrived, in seconds; 0 where there are none.
double transfer_span(const LayerRun& run, Stage stage);

}  // namespace epsim
