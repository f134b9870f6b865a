#pragma once
#include "topology/topology.h"

namespace epsim {

/// Bytes/s that the first half of the ranks (0 .. R/2 - 1) can send to the rest at once over any paths that pass through no rank: the maximum flow between the two, which is also the bandwidth of
/// the narrowest cut between them. 0 for one rank. Rates are taken in whole bytes/s.
Bandwidth bisection_bandwidth(const Topology& topology);

}  // namespace epsim
