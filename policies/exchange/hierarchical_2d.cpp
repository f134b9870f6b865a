#include "policies/exchange/shared/along.h"

namespace epsim::parts_exchange {

/// Two-dimensional hierarchical all-to-all without de-duplication (Tutel's 2DH, Hwang et al. 2023; DeepSpeed-MoE, Rajbhandari et al. 2022): every copy first goes, inside its node, to the rank at its
/// destination's place, and from there on one rail across nodes, in one message for each pair of ranks on the rail. Results return in the same two steps. In nodes of unequal size the place is taken modulo
/// the node's ranks.
Exchange hierarchical_2d(Params& p, const Shape*) {
  const lowering::Chunks chunks = lowering::read_chunks(p, true);
  const auto journey = [](const Topology& topology) {
    Journey j;
    j.rounds = {{{}, {}, "inside nodes"}, {{0}, {}, "across nodes"}};
    j.last = [&topology](Rank s, Rank d) {
      if (topology.node_of(s) == topology.node_of(d)) return Journey::LastHop{0, s};
      const auto mine = topology.ranks_of(topology.node_of(s));
      return Journey::LastHop{1, mine[static_cast<std::size_t>(topology.local_index(d)) % mine.size()]};
    };
    return j;
  };
  return lowering::along("inside the node to the rank at the destination's place, then across nodes on its rail, every copy by itself", journey, lowering::Rows::copy, chunks);
}

}  // namespace epsim::parts_exchange
