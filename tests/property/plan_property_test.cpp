// Plans of random problems: up to 16 ranks, uneven tokens and slots, placement policies in turn and both orders of dropping, counted again token by token.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "policies/plan.h"
#include "tests/support/part_from_yaml.h"
#include "tests/support/random_problem.h"

namespace epsim {
namespace {

using testing::part_from_yaml;

// I1, I4
TEST(PlanProperty, EqualsATokenLevelCount) {
  const ReplicaRule rule = part_from_yaml(builtin_replica_rules(), "round_robin", static_cast<const Shape*>(nullptr));
  std::vector<std::string> policies = builtin_placements().names();
  std::erase(policies, "least_load");  // takes seconds a case
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const testing::RandomProblem c(seed, 1, true);
    const Routing& routing = *c.problem.tokens[0][0];
    const std::string& policy = policies[seed % policies.size()];
    const std::string capacity_yaml = std::vector<std::string>{"dropless", "megatron: {factor: 0.8}", "megatron: {factor: 5/4, order: position}",
                                                               "megatron: {factor: 1, arithmetic: exact}"}[seed / 4 % 4];
    SCOPED_TRACE(policy + ", " + capacity_yaml + ", case " + std::to_string(seed));
    const Capacity capacity = part_from_yaml(builtin_capacities(), capacity_yaml, static_cast<const Shape*>(nullptr));
    const std::vector<Placement> placements = place_with_slots(policy, c, c.slots);
    if (placements.empty()) continue;
    const Placement& placement = placements[0];
    const Plan plan = make_plan(0, routing, capacity, placement, rule, {});

    std::int64_t kept = 0, dropped = 0, partial = 0, total = 0;
    double weight = 0;
    Matrix<std::int64_t> copies(c.problem.ranks, placement.slots());
    std::map<std::pair<int, int>, std::int64_t> kept_of;
    for (int r = 0; r < c.problem.ranks; ++r) {
      double rank_weight = 0;
      for (std::int64_t t = routing.first_token[r]; t < routing.first_token[r + 1]; ++t) {
        int lost = 0;
        for (std::int64_t i = t * routing.top_k; i < (t + 1) * routing.top_k; ++i) {
          const int e = routing.expert[i];
          if (plan.slot[i] < 0) {
            ++lost;
            rank_weight += routing.weight[i];
            continue;
          }
          ++copies(r, plan.slot[i]);
          const std::int64_t n = kept_of[{r, e}]++;
          const auto& replicas = placement.slots_of_expert[static_cast<std::size_t>(e)];
          ASSERT_EQ(plan.slot[i], replicas[static_cast<std::size_t>((r + n) % static_cast<std::int64_t>(replicas.size()))])
              << "the n-th copy of an expert goes to replica (s + n) mod c";
        }
        kept += routing.top_k - lost, dropped += lost;
        partial += lost > 0 && lost < routing.top_k;
        total += lost == routing.top_k;
      }
      weight += rank_weight;
    }
    EXPECT_EQ(kept + dropped, routing.tokens() * routing.top_k);
    EXPECT_EQ(plan.copies, copies);
    EXPECT_EQ(plan.choices, c.problem.counts[0]);
    EXPECT_EQ(plan.drops.choices, dropped);
    EXPECT_EQ(plan.drops.partial_tokens, partial);
    EXPECT_EQ(plan.drops.total_tokens, total);
    EXPECT_EQ(plan.drops.weight, weight);
    EXPECT_TRUE(!plan.limits.cells.empty() || dropped == 0);
    for (int r = 0; r < c.problem.ranks; ++r)
      for (int e = 0; e < c.problem.experts; ++e) {
        const std::int64_t limit = plan.limits.cells.empty() ? plan.choices(r, e) : plan.limits(r, e);
        const auto found = kept_of.find({r, e});
        EXPECT_EQ(found == kept_of.end() ? 0 : found->second, std::min(limit, plan.choices(r, e)))
            << "no expert is over its capacity, and none drops while it has room";
      }
    std::int64_t computed = 0;
    for (const std::int64_t n : plan.copies_of_rank()) computed += n;
    EXPECT_EQ(computed, kept);
  }
}

}  // namespace
}  // namespace epsim
