#pragma once
#include "topology/topology.h"

namespace epsim {

/// Bytes/s that the ranks with `side[r]` can send to the others at once over any paths that pass through no rank: the maximum flow between the two, which is also the bandwidth of the narrowest cut between them.
/// 0 where one of the two is empty. Rates are taken in whole bytes/s.
Bandwidth cut_bandwidth(const Topology& topology, const std::vector<bool>& side);

/// `cut_bandwidth` of the first half of the ranks (0 .. R/2 - 1). 0 for one rank.
Bandwidth bisection_bandwidth(const Topology& topology);

}  // namespace epsim
