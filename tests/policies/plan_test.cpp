#include "policies/plan.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "tests/support/part_from_yaml.h"
#include "tests/support/random_routing.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using testing::part_from_yaml;
using testing::random_routing;

Capacity capacity(const std::string& yaml) { return part_from_yaml(builtin_capacities(), yaml, static_cast<const Shape*>(nullptr)); }
ReplicaRule round_robin() { return part_from_yaml(builtin_replica_rules(), "round_robin", static_cast<const Shape*>(nullptr)); }

/// A capacity of the same number of choices everywhere.
Capacity at_most(std::int64_t limit, Capacity::Order order) {
  Capacity c;
  c.order = order;
  c.limits = [limit](const Matrix<std::int64_t>& choices, const Routing&) {
    Matrix<std::int64_t> m(choices.rows, choices.columns);
    std::ranges::fill(m.cells, limit);
    return m;
  };
  return c;
}

/// Two ranks with three and two tokens, two of three experts each.
Routing small_routing() {
  Routing r;
  r.experts = 3, r.top_k = 2;
  r.first_token = {0, 3, 5};
  r.expert = {0, 1, 0, 2, 1, 0, /* rank 1: */ 2, 0, 0, 2};
  r.weight = {.25F, .75F, .5F, .5F, .125F, .5F, /* rank 1: */ .5F, .5F, .75F, .25F};
  return r;
}
/// Rank 0 holds experts 0 and 1, rank 1 holds 2 and another 0.
Placement small_placement() { return Placement::from_experts({0, 1, 2, 0}, {0, 2, 4}, 3); }

TEST(Plan, DealsEveryChoiceWhereNothingIsDropped) {
  const Plan p = make_plan(7, small_routing(), capacity("dropless"), small_placement(), round_robin(), {});
  EXPECT_EQ(p.layer, 7);
  EXPECT_THAT(p.slot, ElementsAre(0, 1, 3, 2, 1, 0, /* rank 1 begins at the second replica: */ 2, 3, 0, 2));
  EXPECT_THAT(p.choices.cells, ElementsAre(3, 2, 1, 2, 0, 2));
  EXPECT_THAT(p.copies.cells, ElementsAre(2, 2, 1, 1, 1, 0, 2, 1));
  EXPECT_THAT(p.copies_of_slot(), ElementsAre(3, 2, 3, 2));
  EXPECT_THAT(p.copies_of_rank(), ElementsAre(5, 5));
  EXPECT_TRUE(p.limits.cells.empty());
  EXPECT_EQ(p.drops.choices, 0);
  EXPECT_EQ(p.drops.weight, 0);
}

TEST(Plan, KeepsTheLowestTokensByPosition) {
  const Plan p = make_plan(0, small_routing(), at_most(1, Capacity::Order::position), small_placement(), round_robin(), {});
  EXPECT_THAT(p.slot, ElementsAre(0, 1, -1, 2, -1, -1, 2, 3, -1, -1));
  EXPECT_EQ(p.drops.choices, 5);
  EXPECT_EQ(p.drops.partial_tokens, 1);
  EXPECT_EQ(p.drops.total_tokens, 2);
  EXPECT_DOUBLE_EQ(p.drops.weight, .5 + .125 + .5 + .75 + .25);
}

TEST(Plan, KeepsTheHighestWeightsByProbabilityAndTheLowestTokenAmongEquals) {
  const Plan p = make_plan(0, small_routing(), at_most(1, Capacity::Order::probability), small_placement(), round_robin(), {});
  // Rank 0: expert 0 has .25 .5 .5, expert 1 has .75 .125; rank 1: expert 0 has .5 .75, expert 2 has .5 .25.
  EXPECT_THAT(p.slot, ElementsAre(-1, 1, 0, 2, -1, -1, 2, -1, 3, -1));
  EXPECT_EQ(p.drops.partial_tokens, 3);
  EXPECT_EQ(p.drops.total_tokens, 1);
}

TEST(Plan, OrdersNegativeWeightsToo) {
  Routing r;
  r.experts = 1, r.top_k = 1;
  r.first_token = {0, 6};
  r.expert.assign(6, 0);
  r.weight = {-.5F, -.25F, -0.F, 0.F, -1.F, 1.F};
  const auto kept = [&](int limit) {
    return make_plan(0, r, at_most(limit, Capacity::Order::probability), Placement::from_experts({0}, {0, 1}, 1), round_robin(), {}).slot;
  };
  EXPECT_THAT(kept(2), ElementsAre(-1, -1, 0, -1, -1, 0)) << "-0 and 0 tie";
  EXPECT_THAT(kept(4), ElementsAre(-1, 0, 0, 0, -1, 0));
  EXPECT_THAT(kept(5), ElementsAre(0, 0, 0, 0, -1, 0));
}

TEST(Plan, MayDropEverything) {
  for (const auto order : {Capacity::Order::position, Capacity::Order::probability}) {
    const Plan p = make_plan(0, small_routing(), at_most(0, order), small_placement(), round_robin(), {});
    EXPECT_THAT(p.slot, ::testing::Each(-1));
    EXPECT_EQ(p.drops.total_tokens, 5);
    EXPECT_EQ(p.drops.partial_tokens, 0);
    EXPECT_THAT(p.copies_of_rank(), ElementsAre(0, 0));
  }
}

TEST(Plan, AllowsRanksWithoutTokensAndWithoutSlots) {
  Routing r = small_routing();
  r.first_token = {0, 0, 5, 5};
  const Plan p = make_plan(0, r, capacity("megatron: {factor: 1}"), Placement::from_experts({0, 1, 2}, {0, 0, 1, 3}, 3), round_robin(), {});
  EXPECT_THAT(p.copies_of_rank(), ElementsAre(0, 4, 5));
  EXPECT_THAT(p.limits.row(0), ElementsAre(0, 0, 0));
  EXPECT_THAT(p.limits.row(1), ElementsAre(4, 4, 4));
  Routing none = small_routing();
  none.first_token = {0, 0, 0}, none.expert.clear(), none.weight.clear();
  EXPECT_EQ(make_plan(0, none, capacity("dropless"), small_placement(), round_robin(), {}).copies_of_rank(), (std::vector<std::int64_t>{0, 0}));
}

TEST(Plan, ProbabilityOrderEqualsAPlainSort) {
  const Routing routing = random_routing({300, 0, 41}, 16, 4, 3);
  for (const int limit : {1, 7, 40, 90}) {
    const Plan p = make_plan(0, routing, at_most(limit, Capacity::Order::probability),
                             Placement::from_experts({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {0, 8, 8, 16}, 16), round_robin(), {});
    for (int r = 0; r < 3; ++r)
      for (int e = 0; e < 16; ++e) {
        std::vector<std::int64_t> wish;
        for (std::int64_t i = routing.first_token[r] * 4; i < routing.first_token[r + 1] * 4; ++i)
          if (routing.expert[i] == e) wish.push_back(i);
        std::ranges::stable_sort(wish, [&](std::int64_t a, std::int64_t b) { return routing.weight[a] > routing.weight[b]; });
        for (std::size_t n = 0; n < wish.size(); ++n) EXPECT_EQ(p.slot[wish[n]] >= 0, n < static_cast<std::size_t>(limit)) << "rank " << r << " expert " << e;
      }
  }
}

// I5, I8
TEST(Plan, IsTheSameForAnyNumberOfThreads) {
  const Routing routing = random_routing({200, 10, 0, 333, 64, 64, 64, 1}, 12, 3, 5);
  const Placement placement = Placement::from_experts({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 0, 1}, {0, 2, 4, 6, 8, 10, 12, 13, 15}, 12);
  const char* before = std::getenv("EPSIM_THREADS");
  const std::string saved = before ? before : "";
  std::vector<Plan> plans;
  for (const char* threads : {"1", "2", "5"}) {
    ::setenv("EPSIM_THREADS", threads, 1);
    plans.push_back(make_plan(0, routing, capacity("megatron: {factor: 0.7}"), placement, round_robin(), {}));
  }
  before ? ::setenv("EPSIM_THREADS", saved.c_str(), 1) : ::unsetenv("EPSIM_THREADS");
  for (const Plan& p : plans) {
    EXPECT_EQ(p.digest(), plans[0].digest());
    EXPECT_EQ(p.slot, plans[0].slot);
    EXPECT_EQ(p.copies, plans[0].copies);
    EXPECT_EQ(p.drops.weight, plans[0].drops.weight) << "the very same bits";
  }
  EXPECT_GT(plans[0].drops.choices, 0);
}

// I8
TEST(Plan, DigestTellsPlansApart) {
  const Plan plan = make_plan(0, small_routing(), capacity("dropless"), small_placement(), round_robin(), {});
  EXPECT_EQ(plan.digest().size(), 32U);
  EXPECT_EQ(plan.digest().find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(plan.digest(), make_plan(0, small_routing(), capacity("dropless"), small_placement(), round_robin(), {}).digest());
  std::vector<Plan> others(8, plan);
  others[0].layer = 1;
  others[1].slot[0] = 3;
  others[2].routing.weight[4] = 0.1250001F;
  others[3].routing.expert[0] = 1;
  others[4].routing.first_token[1] = 2;
  others[5].placement.expert_of_slot[1] = 2;
  others[6].placement.first_slot[1] = 1;
  std::swap(others[7].placement.slots_of_expert[0][0], others[7].placement.slots_of_expert[0][1]);
  std::vector<std::string> digests = {plan.digest()};
  for (const Plan& other : others) digests.push_back(other.digest());
  std::ranges::sort(digests);
  EXPECT_EQ(std::ranges::adjacent_find(digests), digests.end());
}

TEST(Plan, RefusesARuleThatDealsToNoReplica) {
  ReplicaRule wrong;
  wrong.decide = [](const ReplicaRule::Layer&) -> ReplicaRule::Deal {
    return [](const ReplicaRule::Copies&, std::span<std::uint16_t> out) { std::ranges::fill(out, std::uint16_t{2}); };
  };
  EXPECT_THROW(make_plan(0, small_routing(), capacity("dropless"), small_placement(), wrong, {}), std::logic_error);
}

TEST(Plan, TellsTheRuleHowManyAreKept) {
  ReplicaRule rule = round_robin();
  Matrix<std::int64_t> seen;
  rule.decide = [&seen, inner = rule.decide](const ReplicaRule::Layer& layer) {
    seen = layer.kept;
    return inner(layer);
  };
  make_plan(0, small_routing(), at_most(1, Capacity::Order::position), small_placement(), rule, {});
  EXPECT_THAT(seen.cells, ElementsAre(1, 1, 1, 1, 0, 1));
}

TEST(Plan, TellsARuleThatAsksWhichChoicesItDeals) {
  ReplicaRule rule = round_robin();
  rule.by_choice = true;
  std::vector<std::vector<std::uint32_t>> seen(2);
  rule.decide = [&seen, inner = rule.decide](const ReplicaRule::Layer& layer) -> ReplicaRule::Deal {
    return [&seen, deal = inner(layer)](const ReplicaRule::Copies& copies, std::span<std::uint16_t> out) {
      seen[copies.source].assign(copies.choice.begin(), copies.choice.end());
      deal(copies, out);
    };
  };
  make_plan(0, small_routing(), capacity("dropless"), small_placement(), rule, {});
  EXPECT_THAT(seen, ElementsAre(ElementsAre(0, 2, 5), ElementsAre(1, 2)));  // expert 0 is the one with two replicas
  make_plan(0, small_routing(), at_most(1, Capacity::Order::probability), small_placement(), rule, {});
  EXPECT_THAT(seen, ElementsAre(ElementsAre(2), ElementsAre(2)));  // of equal weights the first is kept
}

TEST(Plan, RefusesTablesOfOtherSizes) {
  Routing r = small_routing();
  r.weight.pop_back();
  EXPECT_THROW(make_plan(0, r, capacity("dropless"), small_placement(), round_robin(), {}), std::logic_error);
  EXPECT_THROW(make_plan(0, small_routing(), capacity("dropless"), Placement::from_experts({0, 1, 2}, {0, 1, 2, 3}, 3), round_robin(), {}), std::logic_error);
}

}  // namespace
}  // namespace epsim
