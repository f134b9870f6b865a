#pragma once
#include <string>
#include <vector>

#include "policies/placement.h"
#include "tests/support/part_from_yaml.h"

namespace epsim::testing {

/// A problem of which only loads are known: one row of sources, or one a rank.
inline Problem problem_of_loads(std::vector<std::vector<std::int64_t>> loads, int ranks, int nodes = 1) {
  Problem p;
  p.experts = static_cast<int>(loads[0].size()), p.ranks = ranks, p.nodes = nodes, p.seed = 42;
  for (std::size_t l = 0; l < loads.size(); ++l) {
    p.layers.push_back(static_cast<int>(l));
    p.counts.emplace_back(1, p.experts).cells = std::move(loads[l]);
  }
  return p;
}

/// What the policy that a line of YAML names gives, every placement checked.
inline std::vector<Placement> placed(const std::string& yaml, const Problem& problem) {
  const Shape shape{.experts = problem.experts, .top_k = 2, .ranks = problem.ranks, .nodes = problem.nodes, .expert_groups = problem.expert_groups};
  std::vector<Placement> placements = part_from_yaml(builtin_placements(), yaml, &shape).place(problem);
  for (const Placement& p : placements) p.check(problem.experts);
  return placements;
}

/// Load of each rank under the placement's shares, or with every expert's load split evenly over its replicas where there are none.
inline std::vector<double> loads_of_ranks(const Placement& p, const std::vector<std::int64_t>& loads) {
  std::vector<double> rank(static_cast<std::size_t>(p.ranks()));
  for (const Slot s : ids<Slot>(p.slots())) {
    const std::size_t e = p.expert_of_slot[static_cast<std::size_t>(s)];
    const double share = p.share.empty() ? 1.0 / static_cast<double>(p.slots_of_expert[e].size()) : p.share[static_cast<std::size_t>(s)];
    rank[static_cast<std::size_t>(p.rank_of(s))] += static_cast<double>(loads[e]) * share;
  }
  return rank;
}

/// The experts on each rank, in the order of its slots.
inline std::vector<std::vector<int>> experts_of_ranks(const Placement& p) {
  std::vector<std::vector<int>> out(static_cast<std::size_t>(p.ranks()));
  for (const Slot s : ids<Slot>(p.slots())) out[static_cast<std::size_t>(p.rank_of(s))].push_back(p.expert_of_slot[static_cast<std::size_t>(s)]);
  return out;
}

}  // namespace epsim::testing
