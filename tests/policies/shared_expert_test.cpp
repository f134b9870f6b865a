#include "policies/shared_expert.h"

#include <gmock/gmock.h>

#include <cmath>

#include "tests/support/part_from_yaml.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::input_error;
using testing::part_from_yaml;

SharedExpertRule rule_of(const std::string& yaml) { return part_from_yaml(builtin_shared_expert_rules(), yaml, static_cast<const Shape*>(nullptr)); }

/// Expert r is on rank r, and every token makes one choice: `tokens[h][d]` tokens of rank h choose expert d, in this order. Dropless, so loads are column sums.
Plan plan_of(const std::vector<std::vector<int>>& tokens, int layer = 0) {
  const auto ranks = static_cast<int>(tokens.size());
  Routing routing;
  routing.experts = ranks, routing.top_k = 1, routing.first_token = {0};
  for (const std::vector<int>& of_home : tokens) {
    for (std::size_t d = 0; d < of_home.size(); ++d) routing.expert.resize(routing.expert.size() + static_cast<std::size_t>(of_home[d]), static_cast<std::uint16_t>(d));
    routing.first_token.push_back(static_cast<std::int64_t>(routing.expert.size()));
  }
  routing.weight.resize(routing.expert.size(), 1);
  std::vector<std::uint16_t> experts;
  std::vector<std::int32_t> first_slot{0};
  for (int r = 0; r < ranks; ++r) experts.push_back(static_cast<std::uint16_t>(r)), first_slot.push_back(r + 1);
  return make_plan(layer, std::move(routing), {}, Placement::from_experts(std::move(experts), std::move(first_slot), ranks),
                   part_from_yaml(builtin_replica_rules(), "round_robin", static_cast<const Shape*>(nullptr)), {});
}

/// Of the tokens of `home` that choose `expert`: how many have their shared expert on each rank.
std::vector<std::int64_t> parts(const Plan& plan, const std::string& yaml, int home, int expert) {
  const std::vector<Rank> chosen = rule_of(yaml).choose(plan);
  std::vector<std::int64_t> out(static_cast<std::size_t>(plan.ranks()));
  for (std::int64_t t = plan.routing.first_token[static_cast<std::size_t>(home)]; t < plan.routing.first_token[static_cast<std::size_t>(home) + 1]; ++t)
    if (plan.routing.expert[static_cast<std::size_t>(t)] == expert) ++out[static_cast<std::size_t>(chosen[static_cast<std::size_t>(t)])];
  return out;
}

/// A count of `n` draws of probability p is this near to n p in all but one case of a million.
void expect_share(std::int64_t count, std::int64_t n, double p) {
  EXPECT_NEAR(static_cast<double>(count), static_cast<double>(n) * p, 5 * std::sqrt(static_cast<double>(n) * p * (1 - p))) << "of " << n;
}

TEST(SharedExpertOwn, LeavesThePlanAsItIs) {
  Plan plan = plan_of({{90, 10}, {80, 20}});
  const std::string before = plan.digest();
  settle_shared_expert(plan, rule_of("own"), {});
  EXPECT_TRUE(plan.shared_rank.empty());
  EXPECT_EQ(plan.digest(), before);
  EXPECT_THAT(plan.shared_rows_of_rank(), ElementsAre(100, 100));
}

// Loads 240, 10 and 50 with 300 tokens: the target is (300 + 300) / 3 = 200, and rank 0 is above it: only ranks that a token visits take its shared expert.
TEST(Waterfill, LeavesRanksAboveTheTargetForRanksThatTheTokenVisits) {
  const Plan plan = plan_of({{90, 10, 0}, {70, 0, 30}, {80, 0, 20}});
  EXPECT_THAT(parts(plan, "waterfill", 0, 0), ElementsAre(90, 0, 0)) << "nowhere else to go";
  EXPECT_THAT(parts(plan, "waterfill", 0, 1), ElementsAre(0, 10, 0)) << "rank 0 has no room";
  EXPECT_THAT(parts(plan, "waterfill", 1, 0), ElementsAre(0, 70, 0)) << "a rank above the target takes nothing";
  EXPECT_THAT(parts(plan, "waterfill", 2, 2), ElementsAre(0, 0, 20)) << "home is the only candidate";
}

// The same in hundreds. Tokens of rank 1 that visit rank 2: rooms of 19,000 and 15,000, home's counting 11 for 10.
TEST(Waterfill, DrawsByRoomWithTheHomeRankFavoured) {
  const Plan plan = plan_of({{9000, 1000, 0}, {7000, 0, 3000}, {8000, 0, 2000}});
  const std::vector<std::int64_t> of_home = parts(plan, "waterfill", 1, 2);
  EXPECT_EQ(of_home[0], 0);
  expect_share(of_home[1], 3000, 11.0 * 19 / (11 * 19 + 10 * 15));
  const std::vector<std::int64_t> unfavoured = parts(plan, "waterfill: {local_preference: 1}", 1, 2), much = parts(plan, "waterfill: {local_preference: 4}", 1, 2);
  expect_share(unfavoured[1], 3000, 19.0 / (19 + 15));
  expect_share(much[1], 3000, 4.0 * 19 / (4 * 19 + 15));
}

// Loads 30,000, 15,000 and 15,000 with 60,000 tokens: nobody is above the target of 40,000, so all ranks are candidates for every token.
TEST(Waterfill, SendsTokensAnywhereWhereNobodyIsAboveTheTarget) {
  const Plan plan = plan_of({{20000, 0, 0}, {10000, 10000, 0}, {0, 5000, 15000}});
  const std::vector<std::int64_t> of_0 = parts(plan, "waterfill", 0, 0), of_1 = parts(plan, "waterfill", 1, 0);
  expect_share(of_0[0], 20000, 11.0 / (11 + 25 + 25));
  expect_share(of_0[1], 20000, 25.0 / (11 + 25 + 25));
  expect_share(of_1[0], 10000, 10.0 / (10 + 27.5 + 25));
  expect_share(of_1[1], 10000, 27.5 / (10 + 27.5 + 25));
}

// Loads of 240, 10 and 50 with 300 tokens, whose rows count four times: nobody is above (300 + 1200) / 3 = 500.
TEST(Waterfill, CountsRowsOfAWiderSharedExpertAsSeveral) {
  const Plan plan = plan_of({{9000, 1000, 0}, {7000, 0, 3000}, {8000, 0, 2000}});
  const std::vector<std::int64_t> of_0 = parts(plan, "waterfill: {row: 4}", 0, 0);
  expect_share(of_0[0], 9000, 11.0 * 26 / (11 * 26 + 10 * (49 + 45)));
  expect_share(of_0[1], 9000, 10.0 * 49 / (11 * 26 + 10 * (49 + 45)));
}

// Rank 1 has 101 copies, and (253 + 253) / 5 = 101.2: rounded up there is room for one, and that is all the room that tokens of rank 0 find.
TEST(Waterfill, RoundsTheTargetUp) {
  const Plan plan = plan_of({{0, 101, 0, 0, 0}, {106, 0, 0, 0, 0}, {0, 0, 46, 0, 0}, {0, 0, 0, 0, 0}, {0, 0, 0, 0, 0}});
  EXPECT_THAT(parts(plan, "waterfill", 0, 1), ElementsAre(0, 101, 0, 0, 0));
  EXPECT_THAT(parts(plan, "waterfill", 1, 0), ElementsAre(0, 106, 0, 0, 0));
}

// Two of eight ranks have everything, far above the target of 53: no candidate has room, and a token goes where it is emptier by more than a tenth.
TEST(Waterfill, WithoutRoomGoesToTheLeastLoadedWithTheHomeRankFavoured) {
  const auto loads = [](int more) {
    std::vector<std::vector<int>> tokens(8, std::vector<int>(8));
    tokens[0] = {10, 100, 0, 0, 0, 0, 0, 0}, tokens[1] = {100 + more, 0, 0, 0, 0, 0, 0, 0};
    return plan_of(tokens);
  };
  EXPECT_EQ(parts(loads(0), "waterfill", 0, 1)[0], 100) << "110 against 11/10 x 100: a tie stays at home";
  EXPECT_EQ(parts(loads(1), "waterfill", 0, 1)[1], 100) << "111 against 11/10 x 100";
  EXPECT_EQ(parts(loads(1), "waterfill: {local_preference: 3/2}", 0, 1)[0], 100);
  EXPECT_EQ(parts(loads(0), "waterfill", 1, 0)[1], 100) << "home is the emptier one";
}

TEST(Waterfill, KeepsSmallBatchesAtHome) {
  const Plan plan = plan_of({{54, 9, 0}, {70, 0, 30}, {80, 0, 20}});  // 63 tokens on rank 0
  EXPECT_THAT(parts(plan, "waterfill", 0, 1), ElementsAre(9, 0, 0));
  EXPECT_THAT(parts(plan, "waterfill: {min_tokens: 63}", 0, 1), ElementsAre(0, 9, 0));
  Plan small = plan_of({{54, 9}, {60, 3}});
  const std::string before = small.digest();
  settle_shared_expert(small, rule_of("waterfill"), {});
  EXPECT_TRUE(small.shared_rank.empty());
  EXPECT_EQ(small.digest(), before);
}

TEST(Waterfill, DrawsByTokenLayerAndSeed) {
  const std::vector<std::vector<int>> tokens = {{2000, 0, 0}, {1000, 1000, 0}, {0, 500, 1500}};
  const auto chosen = [&](int layer, const std::string& yaml, std::uint64_t seed = 0, std::int64_t first_token = 0) {
    Plan plan = plan_of(tokens, layer);
    plan.routing.seed = seed, plan.routing.number = first_token;
    return rule_of(yaml).choose(plan);
  };
  EXPECT_EQ(chosen(3, "waterfill"), chosen(3, "waterfill"));
  EXPECT_NE(chosen(3, "waterfill"), chosen(4, "waterfill"));
  EXPECT_NE(chosen(3, "waterfill"), chosen(3, "waterfill: {seed: 1}"));
  EXPECT_NE(chosen(3, "waterfill"), chosen(3, "waterfill", 1)) << "of the experiment";
  EXPECT_NE(chosen(3, "waterfill"), chosen(3, "waterfill", 0, 6000)) << "the next batch";
}

TEST(SharedExpert, ThePlanCountsItsRowsAndVisitsAndTellsThemApart) {
  Plan plan = plan_of({{90, 10, 0}, {70, 0, 30}, {80, 0, 20}});
  const std::string own = plan.digest();
  EXPECT_EQ(plan.reach.ranks(2, 1), 0);
  SharedExpertRule rule;
  rule.choose = [](const Plan& p) {
    std::vector<Rank> ranks(static_cast<std::size_t>(p.routing.tokens()), Rank(1));  // the tokens of rank 1 stay
    for (std::size_t t = 0; t < 90; ++t) ranks[t] = Rank(0);
    return ranks;
  };
  settle_shared_expert(plan, rule, {});
  EXPECT_NE(plan.digest(), own);
  EXPECT_THAT(plan.shared_rows_of_rank(), ElementsAre(90, 210, 0));
  const Matrix<std::int64_t> visits = visits_by_rank(plan, 2);  // chunks of 50
  EXPECT_EQ(visits(0, 1), 0);
  EXPECT_EQ(visits(1, 1), 10);
  EXPECT_EQ(visits(4, 1) + visits(5, 1), 100);
  EXPECT_EQ(plan.reach.ranks(0, 1), 10) << "they visit rank 1 already";
  EXPECT_EQ(plan.reach.ranks(2, 1), 100) << "for nothing else";
  EXPECT_THAT(plan.reach.tokens, ElementsAre(100, 100, 100));
}

TEST(SharedExpert, ARuleAnswersForEveryTokenWithARankThatThereIs) {
  Plan plan = plan_of({{3, 1}, {2, 2}});
  SharedExpertRule rule;
  for (const std::vector<Rank>& wrong : {std::vector<Rank>(7, Rank(0)), std::vector<Rank>(8, Rank(2)), std::vector<Rank>(8, Rank())}) {
    rule.choose = [&](const Plan&) { return wrong; };
    EXPECT_THROW(settle_shared_expert(plan, rule, {}), std::logic_error);
  }
}

// I11
TEST(SharedExpert, WrongSettingsAreRefused) {
  EXPECT_THAT(input_error([] { rule_of("waterfill: {local_preference: 0.9}"); }), HasSubstr("expected 1 or more"));
  EXPECT_THAT(input_error([] { rule_of("waterfill: {min_token: 3}"); }), HasSubstr("did you mean `min_tokens`?"));
  EXPECT_THAT(input_error([] { rule_of("waterfil"); }), HasSubstr("did you mean `waterfill`?"));
  EXPECT_THAT(input_error([] { rule_of("own: {seed: 3}"); }), HasSubstr("seed"));
}

}  // namespace
}  // namespace epsim
