#pragma once
#include <string>

#include "topology/topology.h"

namespace epsim {

/// GraphML that `cluster: graphml` reads back: the same ranks, links, rates and latencies. Costs of links, routing and device are not written.
/// Throws InputError where a link costs more than 1, because paths would differ.
std::string to_graphml(const Topology& topology);

/// A SimGrid platform (DTD 4.1): a host a rank (`rank-0` and so on, of `speed` FLOP/s), a shared link a directed link, and one route a pair in routing="Full".
/// Throws InputError for more than 512 ranks and for routing over several paths, which SimGrid does not have.
std::string to_simgrid(const Topology& topology, double speed);

/// An ASTRA-sim analytical network: a Switch over the ranks of a node and one over nodes, each with the rate that a pair of ranks has alone and half the latency of its path (a Switch is two hops there).
/// A summary: tiers that ranks share are not in it. Throws InputError where nodes are not alike.
std::string to_astra_sim(const Topology& topology);

}  // namespace epsim
