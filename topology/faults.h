#pragma once
#include <optional>
#include <string>
#include <vector>

#include "topology/topology.h"

namespace epsim {

/// Links that are slower than they should be or gone.
struct Fault {
  Location at;             ///< where it was written
  std::string link;        ///< a link's name, or a pattern of names in which * stands for any text and ? for any letter; empty for a NIC
  Rank nic;                ///< the rank whose NIC is meant: its links, both ways, that are not of the tiers of scale-up links, "nvlink" and "ub"
  double scale = 0;        ///< of the bandwidth; 0 removes the link
};

/// Applies faults to the links of a cluster, one after another: scales of one link multiply, and removed links are gone. Reports to `problems` a fault that no link answers to, with the nearest name.
void apply(const std::vector<Fault>& faults, const std::vector<Vertex>& vertices, std::vector<Link>& links, Diagnostics& problems);

/// The topology whose links of a name or pattern have `scale` (above 0) times their bandwidth. Throws InputError where no link has such a name.
Topology scaled(const Topology& topology, const std::string& link, double scale);
/// The topology without the links of a name or pattern. Throws InputError where no link has such a name or ranks are then disconnected.
Topology without(const Topology& topology, const std::string& link);
/// The topology without the ranks `down` and their links. The other ranks, and the nodes that keep any, are numbered anew in the same order; which of several next hops carries a pair may change with the numbers.
Topology without_ranks(const Topology& topology, const std::vector<Rank>& down);
/// The same topology with all ranks in one node.
Topology as_one_node(const Topology& topology);

}  // namespace epsim
