// Policies on LAER-MoE's time model: laer, flexmoe.
#include <gmock/gmock.h>

#include "policies/placement/shared/laer_time.h"
#include "tests/support/placed.h"

namespace epsim {
namespace {

using ::testing::DoubleEq;
using testing::experts_of_ranks;
using ::testing::HasSubstr;
using testing::input_error;
using testing::placed;
using ::testing::Pointwise;
using testing::problem_of_loads;

using Experts = std::vector<std::vector<int>>;

/// A model of which a row is 4 bytes and a token's compute 2 FLOP.
void make_small(Problem& p) {
  p.pricing.hidden = p.pricing.expert_ffn = p.pricing.expert_matrices = 1;
  p.pricing.dispatch = Precision::fp32;
}

// With `make_small`: a second a token, a second a row inside a node and two between nodes.
const std::string kSeconds = "v_comp: 2, v_intra: 4B/s, v_inter: 2B/s";

TEST(LaerTime, AddsSourcesAndTakesTheSlowestRank) {
  Problem p = problem_of_loads({{0, 0}}, 4, 2);
  make_small(p);
  p.counts[0] = Matrix<std::int64_t>(4, 2);
  p.counts[0].cells = {8, 0, 0, 0, 4, 2, 0, 3};
  const std::vector<int> node = {0, 0, 1, 1};
  LaerSettings s{.slots = 3, .flops = 2, .intra = 4, .inter = 2};
  const Placement placement = Placement::from_experts({0, 0, 1}, {0, 1, 2, 3, 3}, 2);
  // Of expert 0, rank 0 keeps half of 8, and rank 2 has no copy in its node: 4 rows inside, 4 between nodes. Of expert 1, rank 2 keeps its own and rank 3 sends
  // 3: 4 + 2 x 4 + 3 = 15 seconds.
  const LaerTime::Estimate e = LaerTime(p, 0, s, node)(placement);
  EXPECT_THAT(e.load, Pointwise(DoubleEq(), {6.0, 6.0, 5.0, 0.0}));
  EXPECT_DOUBLE_EQ(e.seconds, 4 * 15 + 3 * 6);
  EXPECT_DOUBLE_EQ(e.max_over_min(), 7);
  s.recompute = true;
  EXPECT_DOUBLE_EQ(LaerTime(p, 0, s, node)(placement).seconds, 4 * 15 + 4 * 6);
  p.speed = {1, 0.5, 1, 1};
  EXPECT_DOUBLE_EQ(LaerTime(p, 0, s, node)(placement).seconds, 4 * 15 + 4 * 12);
}

TEST(LaerTime, TakesUnknownSourcesToBeAlike) {
  const Problem p = problem_of_loads({{12}}, 4, 2);
  const LaerSettings s{.slots = 1, .flops = 2.0 * 3 * 4096 * 14336, .intra = 8192, .inter = 4096};
  // 3 tokens a rank: none of the holder's own, 3 inside its node, 6 x 2 between; the model is Mixtral's.
  EXPECT_DOUBLE_EQ(LaerTime(p, 0, s, std::vector<int>{0, 0, 1, 1})(Placement::from_experts({0}, {0, 1, 1, 1, 1}, 1)).seconds, 4 * (3 + 12) + 3 * 12);
}

TEST(Laer, ReplicatesByLoadAndTakesTheLightestRank) {
  // 12 is copied to 6, then 4; all weigh 4 or less, and ties go to the lowest rank.
  EXPECT_EQ(experts_of_ranks(placed("laer: {slots: 6}", problem_of_loads({{12, 4, 2, 2}}, 3))[0]), (Experts{{0, 1}, {0, 2}, {0, 3}}));
}

TEST(Laer, SpreadsCopiesOverNodes) {
  // Two copies of 10 after one of 9: rank 1 is the lightest, then node 1 has none yet.
  EXPECT_EQ(experts_of_ranks(placed("laer: {slots: 4}", problem_of_loads({{10, 9, 1}}, 4, 2))[0]), (Experts{{1}, {0}, {0}, {2}}));
}

TEST(Laer, KeepsACopyOfEveryExpertInEachNodeWhereThatFits) {
  // 8 slots hold 3 experts twice; two copies more, one a node, go to the heaviest, whose 25 a copy weigh less than the others then.
  const Placement p = placed("laer: {slots: 8}", problem_of_loads({{100, 40, 30}}, 4, 2))[0];
  for (int e = 0; e < 3; ++e) {
    int first = 0, second = 0;
    for (const Slot s : p.slots_of_expert[static_cast<std::size_t>(e)]) ++(p.rank_of(s) < 2 ? first : second);
    EXPECT_EQ(first, e == 0 ? 2 : 1);
    EXPECT_EQ(second, first);
  }
}

TEST(Laer, WeighsMessagesAgainstCompute) {
  // Even copies: ranks 0, 1 share expert 0 and 2, 3 expert 1, whose tokens they have: 45 / 2 x 2 + 15 / 2 x 2 = 60 rows are sent, and 45 tokens computed. By
  // load, 0 is on three ranks: 60 + 15 rows, 30 tokens.
  Problem p = problem_of_loads({{0, 0}}, 4);
  make_small(p);
  p.counts[0] = Matrix<std::int64_t>(4, 2);
  p.counts[0].cells = {45, 0, 45, 0, 0, 15, 0, 15};
  // 4 x 60 t + 3 x 45 against 4 x 75 t + 3 x 30: even copies win where a row takes more than 3 / 4 of a second.
  EXPECT_EQ(experts_of_ranks(placed("laer: {slots: 4, v_comp: 2, v_intra: 4B/s}", p)[0]), (Experts{{0}, {0}, {1}, {1}}));
  EXPECT_EQ(experts_of_ranks(placed("laer: {slots: 4, v_comp: 2, v_intra: 8B/s}", p)[0]), (Experts{{0}, {0}, {0}, {1}}));
}

TEST(Laer, TriesRandomTransfers) {
  // Copies by load are {2, 2, 1, 1} with 16.5 the most on three ranks of two slots; transfers never make it worse.
  const Problem p = problem_of_loads({{33, 30, 14, 11}}, 3);
  const std::vector<int> node(3, 0);
  const LaerSettings s{.slots = 6, .flops = 1e12, .intra = 1e9, .inter = 1e9};
  const LaerTime time(p, 0, s, node);
  EXPECT_LE(time(placed("laer: {slots: 6, transfers: 50}", p)[0]).seconds, time(placed("laer: {slots: 6}", p)[0]).seconds);
}

TEST(FlexMoe, GivesTheHottestExpertWhatTheColdestCanSpare) {
  // At first slot p holds expert p mod 3: {0, 1}, {2, 0}. Expert 1 takes the copy of 0 on the rank that lacks it.
  EXPECT_EQ(experts_of_ranks(placed("flexmoe: {slots: 4}", problem_of_loads({{1, 10, 1}}, 2))[0]), (Experts{{0, 1}, {2, 1}}));
  EXPECT_EQ(experts_of_ranks(placed("flexmoe: {slots: 4, max_iteration: 0}", problem_of_loads({{1, 10, 1}}, 2))[0]), (Experts{{0, 1}, {2, 0}}));
}

TEST(FlexMoe, ChangesPlacesWhereTheRankHasTheExpert) {
  // Expert 0 can spare a copy, but only on rank 0, which has expert 1: expert 2, the colder of what rank 1 has, goes there.
  Problem p = problem_of_loads({{1, 20, 2, 2}}, 2);
  p.previous = {Placement::from_experts({1, 0, 0, 2, 3, 2}, {0, 3, 6}, 4)};
  EXPECT_EQ(experts_of_ranks(placed("flexmoe: {slots: 6}", p)[0]), (Experts{{1, 2, 0}, {1, 3, 2}}));
}

TEST(FlexMoe, StopsWhereNothingImproves) {
  // 10 | 4.5 | 4.5 becomes 5 | 5 | 9; the next round would give expert 1 back what it lost.
  Problem p = problem_of_loads({{10, 9}}, 3);
  p.previous = {Placement::from_experts({1, 0, 1}, {0, 1, 2, 3}, 2)};
  EXPECT_EQ(experts_of_ranks(placed("flexmoe: {slots: 3}", p)[0]), (Experts{{0}, {0}, {1}}));
}

TEST(FlexMoe, ExpandsOnceANode) {
  // Both nodes hold every expert; each gives its second copy of expert 0 to expert 2.
  Problem p = problem_of_loads({{3, 3, 90}}, 4, 2);
  p.previous = {Placement::from_experts({0, 1, 0, 2, 0, 1, 0, 2}, {0, 2, 4, 6, 8}, 3)};
  const Placement one = placed("flexmoe: {slots: 8, max_iteration: 1}", p)[0];
  EXPECT_EQ(experts_of_ranks(one), (Experts{{2, 1}, {0, 2}, {2, 1}, {0, 2}}));
}

// I11
TEST(LaerPlacements, RefuseBadSettings) {
  const Problem p = problem_of_loads({{1, 2, 3, 4}}, 2);
  EXPECT_THAT(input_error([&] { placed("laer: {slots: 3}", p); }), HasSubstr("3 slots are fewer than the 4 experts"));
  EXPECT_THAT(input_error([&] { placed("laer: {v_intra: 5}", p); }), HasSubstr("`v_intra` must be"));
  EXPECT_THAT(input_error([&] { placed("flexmoe: {transfers: 5}", p); }), HasSubstr("no setting `transfers`"));
}

}  // namespace
}  // namespace epsim
