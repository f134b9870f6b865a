// Plans of random problems: up to 16 ranks, uneven tokens and slots, every placement policy and both orders of dropping, counted again token by token.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "policies/plan.h"
#include "tests/support/part_from_yaml.h"
#include "tests/support/random_routing.h"

namespace epsim {
namespace {

using testing::part_from_yaml;

struct RandomCase {
  Problem problem;
  Routing routing;
  int slots = 0;
};

RandomCase random_case(std::uint64_t seed) {
  Rng rng(seed, Stream::test, 1);
  RandomCase c;
  Problem& p = c.problem;
  p.nodes = 1 << rng.below(3);
  p.ranks = p.nodes * static_cast<int>(1 + rng.below(static_cast<std::uint64_t>(16 / p.nodes)));
  p.expert_groups = 1 << rng.below(3);
  p.experts = p.expert_groups * static_cast<int>(1 + rng.below(12));
  p.seed = seed;
  c.slots = p.experts + static_cast<int>(rng.below(20));
  std::vector<std::int64_t> tokens;
  for (int r = 0; r < p.ranks; ++r) tokens.push_back(rng.below(5) == 0 ? 0 : static_cast<std::int64_t>(rng.below(60)));
  c.routing =
      testing::random_routing(tokens, p.experts, static_cast<int>(1 + rng.below(std::min<std::uint64_t>(8, static_cast<std::uint64_t>(p.experts)))), seed);
  p.layers = {static_cast<int>(rng.below(60))};
  p.counts.emplace_back(p.ranks, p.experts);
  for (int r = 0; r < p.ranks; ++r)
    for (std::int64_t i = c.routing.first_token[r] * c.routing.top_k; i < c.routing.first_token[r + 1] * c.routing.top_k; ++i)
      ++p.counts[0](r, c.routing.expert[i]);
  return c;
}

Shape shape_of(const RandomCase& c) {
  return {.experts = c.problem.experts, .top_k = c.routing.top_k, .ranks = c.problem.ranks, .nodes = c.problem.nodes, .expert_groups = c.problem.expert_groups};
}

Placement place(const std::string& policy, const RandomCase& c) {
  const Shape shape = shape_of(c);
  const int slots = policy == "eplb" ? (c.slots + c.problem.ranks - 1) / c.problem.ranks * c.problem.ranks : c.slots;
  return part_from_yaml(builtin_placements(), policy + ": {slots: " + std::to_string(slots) + "}", &shape).place(c.problem).at(0);
}

TEST(PlacementProperty, EveryPolicyIsLegalOnRandomProblems) {
  const PlacementCatalog catalog = builtin_placements();
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const RandomCase c = random_case(seed);
    const Shape shape = shape_of(c);
    for (const std::string& policy : catalog.names()) {
      SCOPED_TRACE(policy + " of case " + std::to_string(seed));
      for (const std::string& yaml : {policy, policy + ": {slots: " + std::to_string((c.slots / c.problem.ranks + 1) * c.problem.ranks) + "}"}) {
        const std::vector<Placement> placements = part_from_yaml(catalog, yaml, &shape).place(c.problem);
        ASSERT_EQ(placements.size(), 1U);
        placements[0].check(c.problem.experts);
        ASSERT_EQ(placements[0].ranks(), c.problem.ranks);
        std::int32_t fewest = placements[0].slots(), most = 0;
        for (const Rank r : ids<Rank>(c.problem.ranks)) {
          const std::int32_t n = placements[0].first_slot[r + 1] - placements[0].first_slot[r];
          fewest = std::min(fewest, n), most = std::max(most, n);
          for (std::int32_t s = placements[0].first_slot[r]; s < placements[0].first_slot[r + 1]; ++s) ASSERT_EQ(placements[0].rank_of(Slot(s)), r);
        }
        EXPECT_LE(most - fewest, 1);
        EXPECT_EQ(part_from_yaml(catalog, yaml, &shape).place(c.problem)[0].expert_of_slot, placements[0].expert_of_slot) << "I5";
      }
    }
  }
}

// I1, I4
TEST(PlanProperty, EqualsATokenLevelCount) {
  const ReplicaRule rule = part_from_yaml(builtin_replica_rules(), "round_robin", static_cast<const Shape*>(nullptr));
  const std::vector<std::string> policies = builtin_placements().names();
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const RandomCase c = random_case(seed);
    const Routing& routing = c.routing;
    const std::string& policy = policies[seed % policies.size()];
    const std::string capacity_yaml = std::vector<std::string>{"dropless", "megatron: {factor: 0.8}", "megatron: {factor: 5/4, order: position}",
                                                               "megatron: {factor: 1, arithmetic: exact}"}[seed / 4 % 4];
    SCOPED_TRACE(policy + ", " + capacity_yaml + ", case " + std::to_string(seed));
    const Capacity capacity = part_from_yaml(builtin_capacities(), capacity_yaml, static_cast<const Shape*>(nullptr));
    const Placement placement = place(policy, c);
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
