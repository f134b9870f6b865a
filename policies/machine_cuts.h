#pragma once
#include <cstdint>
#include <vector>

#include "base/matrix.h"
#include "policies/schedule.h"
#include "topology/topology.h"

namespace epsim {

/// Rows between a serving rank and homes that are far enough from it are under way for so long at least.
struct Approach {
  double latency = 0;                             ///< seconds
  std::vector<std::vector<std::int32_t>> nearer;  ///< [R] by serving rank: itself, and the homes with shorter ways; ascending
};

/// What bounds must know of a machine and of an exchange on it, found once: how fast bytes can leave and enter each rank and each node, over all links together, and how long they are under way at least.
struct MachineCuts {
  std::vector<double> rank_out, rank_in;          ///< [R] bytes/s of a rank's own links, but for those that no path between ranks goes over; infinite where there are none
  std::vector<double> node_out, node_in;          ///< [N] bytes/s of the narrowest cut between a node and all others (topology/bisection.h); infinite where there is one node
  std::vector<double> latency_out, latency_in;    ///< [R] seconds from a rank to any other, or back, at least
  std::vector<double> far_out, far_in;            ///< [R] the same to and from ranks of other nodes; infinite where there is one node
  std::vector<Approach> there, back;              ///< of rows to serving ranks and of results from them, on the exchange's own ways, hop after hop; empty beyond 1,024 ranks
};
MachineCuts cuts_of(const Topology& topology, const Exchange& exchange);

}  // namespace epsim
