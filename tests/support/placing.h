#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "policies/placement.h"
#include "tests/support/part_from_yaml.h"

namespace epsim::testing {

/// A problem of one layer whose batches have these loads, on ranks of `nodes` nodes; sources are not known.
inline Problem problem_of_loads(const std::vector<std::vector<std::int64_t>>& batches, int ranks, int nodes = 1) {
  Problem p;
  p.experts = static_cast<int>(batches[0].size()), p.ranks = ranks, p.nodes = nodes, p.seed = 1;
  p.layers = {0};
  p.counts.emplace_back(1, p.experts);
  p.batches.emplace_back(static_cast<std::int64_t>(batches.size()), p.experts);
  for (std::size_t b = 0; b < batches.size(); ++b)
    for (std::size_t e = 0; e < batches[b].size(); ++e) {
      p.counts[0].cells[e] += batches[b][e];
      p.batches[0].row(static_cast<std::int64_t>(b))[e] = batches[b][e];
    }
  return p;
}

/// A problem whose one layer has these tokens (choices of each), all on rank 0, a batch.
inline Problem problem_of_tokens(const std::vector<std::vector<std::uint16_t>>& tokens, int experts, int ranks, int nodes) {
  std::vector<std::int64_t> loads(static_cast<std::size_t>(experts));
  const auto routing = std::make_shared<Routing>();
  routing->experts = experts, routing->top_k = static_cast<int>(tokens[0].size());
  routing->first_token.assign(static_cast<std::size_t>(ranks) + 1, static_cast<std::int64_t>(tokens.size()));
  routing->first_token[0] = 0;
  for (const std::vector<std::uint16_t>& token : tokens)
    for (const std::uint16_t e : token) ++loads[e], routing->expert.push_back(e), routing->weight.push_back(1);
  Problem p = problem_of_loads({loads}, ranks, nodes);
  p.tokens = {{routing}};
  return p;
}

/// All layers as the policy of a line of YAML places them; checked.
inline std::vector<Placement> place_all(const std::string& yaml, const Problem& p) {
  const Shape shape{.experts = p.experts, .top_k = 1, .ranks = p.ranks, .nodes = p.nodes, .expert_groups = p.expert_groups};
  std::vector<Placement> placements = part_from_yaml(builtin_placements(), yaml, &shape).place(p);
  for (const Placement& placement : placements) placement.check(p.experts);
  return placements;
}
inline Placement place_first(const std::string& yaml, const Problem& p) { return place_all(yaml, p).at(0); }

/// The heaviest rank's load where experts split evenly over their slots.
inline double peak(const Placement& p, const std::vector<std::int64_t>& loads) {
  std::vector<double> rank(static_cast<std::size_t>(p.ranks()));
  for (const Slot s : ids<Slot>(p.slots())) {
    const std::size_t e = p.expert_of_slot[static_cast<std::size_t>(s)];
    rank[static_cast<std::size_t>(p.rank_of(s))] += static_cast<double>(loads[e]) / static_cast<double>(p.slots_of_expert[e].size());
  }
  return *std::ranges::max_element(rank);
}

/// Loads whose best placement in 16 slots on 8 ranks is known: 196 2/3, with 4, 3, 1, 3, 1, 1, 1, 2 copies; the mean rank has 181.25 (vLLM pull request 37656).
inline const std::vector<std::int64_t>& skewed_loads() {
  static const std::vector<std::int64_t> loads = {600, 560, 120, 120, 20, 10, 10, 10};
  return loads;
}

}  // namespace epsim::testing
