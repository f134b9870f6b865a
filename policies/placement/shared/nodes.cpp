#include "policies/placement/shared/nodes.h"

#include "policies/placement/shared/slots.h"

namespace epsim {

std::vector<int> node_of_ranks(const Problem& problem) {
  std::vector<int> node(static_cast<std::size_t>(problem.ranks));
  if (problem.topology) {
    for (const Rank r : ids<Rank>(problem.ranks)) node[static_cast<std::size_t>(r)] = problem.topology->node_of(r);
    return node;
  }
  const std::vector<std::int32_t> first = spread_slots(problem.ranks, problem.nodes);
  for (std::size_t n = 0; n + 1 < first.size(); ++n)
    for (std::int32_t r = first[n]; r < first[n + 1]; ++r) node[static_cast<std::size_t>(r)] = static_cast<int>(n);
  return node;
}

}  // namespace epsim
