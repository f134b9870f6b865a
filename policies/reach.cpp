#include "policies/reach.h"

#include "base/parallel.h"
#include "policies/plan.h"

namespace epsim {
namespace {

/// Counts tokens at one place: a token is counted when it comes for the first time.
struct Visits {
  std::int64_t last = -1, tokens = 0;
};

struct Place {
  std::int32_t rank, node;
};

}  // namespace

Reach reach_of(const Plan& plan, const Topology& topology) {
  const int ranks = plan.ranks(), nodes = topology.nodes();
  // Dropped choices, slot -1, go to a rank and a node of their own: no branch, which could not be foreseen, is needed for them.
  std::vector<Place> places(static_cast<std::size_t>(plan.placement.slots()) + 1, {ranks, nodes});
  for (const Rank r : ids<Rank>(ranks))
    for (std::int32_t s = plan.placement.first_slot[r]; s < plan.placement.first_slot[r + 1]; ++s)
      places[static_cast<std::size_t>(s) + 1] = {r.value, nodes > 0 ? topology.node_of(r).value : 0};

  Reach reach{{ranks, ranks}, {ranks, nodes}, std::vector<std::int64_t>(static_cast<std::size_t>(ranks))};
  parallel_for(ranks, [&](std::int64_t home) {
    const std::int64_t k = plan.routing.top_k, first = plan.routing.first_token[home], last = plan.routing.first_token[home + 1];
    std::vector<Visits> of_rank(static_cast<std::size_t>(ranks) + 1), of_node(static_cast<std::size_t>(nodes) + 1);
    const Place* at_slot = places.data() + 1;
    const std::int32_t* slot = plan.slot.data() + first * k;
    std::int64_t reached = 0;
    for (std::int64_t t = first; t < last; ++t, slot += k) {
      std::int32_t highest = -1;
      for (std::int64_t c = 0; c < k; ++c) {
        const Place at = at_slot[slot[c]];
        Visits &rank = of_rank[static_cast<std::size_t>(at.rank)], &node = of_node[static_cast<std::size_t>(at.node)];
        rank.tokens += rank.last != t;
        rank.last = t;
        node.tokens += node.last != t;
        node.last = t;
        highest = slot[c] > highest ? slot[c] : highest;
      }
      reached += highest >= 0;
    }
    for (std::int64_t r = 0; r < ranks; ++r) reach.ranks(home, r) = of_rank[static_cast<std::size_t>(r)].tokens;
    for (std::int64_t n = 0; n < nodes; ++n) reach.nodes(home, n) = of_node[static_cast<std::size_t>(n)].tokens;
    reach.tokens[static_cast<std::size_t>(home)] = reached;
  });
  return reach;
}

}  // namespace epsim
