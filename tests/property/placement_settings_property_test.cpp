// Placement policies with settings under which they act on small problems, where their own would leave everything as it is.
#include <gtest/gtest.h>

#include "tests/support/random_problem.h"

namespace epsim {
namespace {

TEST(PlacementSettingsProperty, PoliciesAreLegalWhereTheyAct) {
  const char* const all[] = {"fastermoe_shadowing: {bandwidth: 1MB/s, d_model: 1, alpha: 1}",
                             "llep: {min_tokens_per_gemm: 1, adaptive_ratio: 0, max_tokens_factor: 1}",
                             "llep: {min_tokens_per_gemm: 7, adaptive_ratio: 0, max_tokens_factor: 1/2}",
                             "harmoeny: {eq_tokens: 0}",
                             "harmoeny: {eq_tokens: 3}",
                             "ultraep: {min_tokens_per_replica: 1}",
                             "ultraep: {min_tokens_per_replica: 4, redundant_slots: 1, domain: any, may_leave_home: true}",
                             "lplb: {topology: torus}",
                             "laer: {transfers: 20}",
                             "flexmoe: {v_inter: 1kB/s}",
                             "grace: {assign: bottleneck}",
                             "grace: {equal_experts: false, ratio: 0.5}",
                             "grace: {changes: 8}",
                             "grace: {assign: bottleneck, equal_experts: false, ratio: 0.5, changes: 8}",
                             "graph_partition: {balance: both}",
                             "exflow: {node_cost: 7/2}",
                             "vibe: {speeds: [1, 0.25, 0.5]}"};
  for (const char* const yaml : all) {
    int acted = 0;
    for (std::uint64_t seed = 0; seed < 120; ++seed) {
      SCOPED_TRACE(std::string(yaml) + " of case " + std::to_string(seed));
      testing::RandomProblem c(seed);
      const Shape shape = c.shape();
      PlacementPolicy policy;
      try {
        policy = testing::part_from_yaml(builtin_placements(), yaml, &shape);
      } catch (const InputError&) {
        continue;  // a torus needs equal nodes
      }
      c.problem.previous.clear();
      const std::vector<Placement> first = policy.place(c.problem);
      for (std::size_t l = 0; l < first.size(); ++l) {
        first[l].check(c.problem.experts);
        for (std::size_t s = 0; s < first[l].expert_of_slot.size(); ++s) acted += first[l].expert_of_slot[s] != s;
      }
      c.problem.previous = first;
      for (const Placement& p : policy.place(c.problem)) p.check(c.problem.experts);
    }
    EXPECT_GT(acted, 100) << yaml;
  }
}

/// The largest load under shares.
double largest_load(const Placement& p, const std::vector<std::int64_t>& loads) {
  std::vector<double> rank(static_cast<std::size_t>(p.ranks()));
  for (const Slot s : ids<Slot>(p.slots())) rank[p.rank_of(s)] += p.share[s] * static_cast<double>(loads[p.expert_of_slot[s]]);
  return *std::ranges::max_element(rank);
}

TEST(PlacementSettingsProperty, PlannedQuotasNeverRaiseTheLargestLoad) {
  for (const char* const yaml : {"harmoeny: {eq_tokens: 1}", "ultraep: {min_tokens_per_replica: 1}", "ultraep: {min_tokens_per_replica: 9, domain: any}"})
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
      testing::RandomProblem c(seed);
      const Shape shape = c.shape();
      c.problem.previous.clear();
      const std::vector<Placement> before = testing::part_from_yaml(builtin_placements(), "ultraep: {redundant_slots: 0}", &shape).place(c.problem);
      const std::vector<Placement> after = testing::part_from_yaml(builtin_placements(), yaml, &shape).place(c.problem);
      for (std::size_t l = 0; l < after.size(); ++l)
        EXPECT_LE(largest_load(after[l], c.problem.loads(l)), largest_load(before[l], c.problem.loads(l)) + 1e-6) << yaml << ", case " << seed;
    }
}

}  // namespace
}  // namespace epsim
