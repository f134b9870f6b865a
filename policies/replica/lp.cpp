#include <algorithm>

#include "policies/replica/shared/draws.h"
#include "policies/replica/shared/quotas.h"
#include "policies/solve/linear_program.h"

namespace epsim::parts_replica {
namespace {

/// Shares [P] that minimise the load of the fullest rank, every replicated expert's load split in any parts over its replicas.
std::vector<double> shares_of_program(const ReplicaRule::Layer& layer) {
  const std::vector<std::int64_t> copies = replicas::copies_of_expert(layer);
  const std::vector<Rank> rank_of = replicas::ranks_of_slots(layer.placement);
  const auto ranks = static_cast<std::size_t>(layer.placement.ranks());
  std::vector<double> fixed(ranks), shares(rank_of.size(), 1);
  std::vector<std::vector<LinearProgram::Term>> on_rank(ranks);
  std::vector<int> column_of(rank_of.size(), -1);
  LinearProgram program;
  const int fullest = program.add_column({.cost = 1});
  for (std::size_t e = 0; e < copies.size(); ++e) {
    const std::vector<Slot>& slots = layer.placement.slots_of_expert[e];
    const auto load = static_cast<double>(copies[e]);
    if (slots.size() == 1) {
      fixed[static_cast<std::size_t>(rank_of[static_cast<std::size_t>(slots[0])])] += load;
      continue;
    }
    std::vector<LinearProgram::Term> all;
    for (const Slot s : slots) {
      const int column = column_of[static_cast<std::size_t>(s)] = program.add_column({});
      all.push_back({column, 1});
      on_rank[static_cast<std::size_t>(rank_of[static_cast<std::size_t>(s)])].push_back({column, 1});
    }
    program.add_row(load, load, std::move(all));
  }
  for (std::size_t r = 0; r < ranks; ++r) {
    on_rank[r].push_back({fullest, -1});
    program.add_row(-LinearProgram::kInfinity, -fixed[r], std::move(on_rank[r]));
  }
  const LinearSolution solution = solve(program);
  for (std::size_t e = 0; e < copies.size(); ++e)
    for (const Slot slot : layer.placement.slots_of_expert[e]) {
      const auto s = static_cast<std::size_t>(slot);
      if (column_of[s] < 0) continue;
      const bool solved = solution.status == SolveStatus::optimal && copies[e] > 0;
      shares[s] = solved ? std::max(0.0, solution.values[static_cast<std::size_t>(column_of[s])]) / static_cast<double>(copies[e])
                         : 1 / static_cast<double>(layer.placement.slots_of_expert[e].size());
    }
  return shares;
}

/// Every copy by itself with the shares as probabilities.
ReplicaRule::Deal deal_at_random(const ReplicaRule::Layer& layer, const std::vector<double>& shares, std::uint64_t seed) {
  constexpr double kRange = 4294967296.0;  // 2^32
  const auto shares_to = std::make_shared<std::vector<std::vector<std::uint64_t>>>();  // [E][c - 1] sums of shares up to a replica, in parts of 2^32
  for (const std::vector<Slot>& slots : layer.placement.slots_of_expert) {
    std::vector<std::uint64_t>& to = shares_to->emplace_back();
    double sum = 0;
    for (std::size_t j = 0; j + 1 < slots.size(); ++j) to.push_back(static_cast<std::uint64_t>((sum += shares[static_cast<std::size_t>(slots[j])]) * kRange));
  }
  return [=](const ReplicaRule::Copies& copies, std::span<std::uint16_t> out) {
    const std::vector<std::uint64_t>& to = (*shares_to)[static_cast<std::size_t>(copies.expert)];
    Rng rng = replicas::draws(layer, copies, seed);
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < out.size(); ++i, bits >>= 32) {
      if (i % 2 == 0) bits = rng.bits();
      out[i] = 0;
      for (const std::uint64_t t : to) out[i] = static_cast<std::uint16_t>(out[i] + ((bits & 0xffffffff) >= t));
    }
  };
}

}  // namespace

/// A linear program for each batch: the split of every replicated expert over all its replicas that minimises the fullest rank (SGLang's `lp` dispatch, pull request 24515), here solved to the end by the simplex method. SGLang then draws
/// a replica for every copy with the shares as probabilities (`deal: random`); `deal: exact` gives every replica its share to the copy, by largest remainder, and spreads each source's copies alike.
ReplicaRule lp(Params& p, const Shape*) {
  ReplicaRule rule;
  rule.summary = "A linear program for each batch splits replicated experts so that the fullest rank is lowest; copies follow its shares (SGLang's `lp`).";
  const bool exact = p.choice("deal", "copies follow the shares exactly (`exact`) or each by itself with the shares as probabilities (`random`)", {"exact", "random"}, "exact") == "exact";
  if (exact && p.has("seed")) p.error("seed", "`seed` has no use in `deal: exact`");
  const auto seed = static_cast<std::uint64_t>(p.integer("seed", "of the random numbers of `deal: random`, besides the experiment's", 0));
  if (!p.usable()) return rule;
  rule.decide = [=](const ReplicaRule::Layer& layer) -> ReplicaRule::Deal {
    const std::vector<double> shares = shares_of_program(layer);
    if (!exact) return deal_at_random(layer, shares, seed);
    return replicas::deal_by_quota(layer, replicas::quotas_of_shares(layer, shares), replicas::Locality::none);
  };
  return rule;
}

}  // namespace epsim::parts_replica
