// Policies that pack whole experts or replicas by load: smartmoe, lplb, vibe.
#include <gmock/gmock.h>

#include <algorithm>
#include <set>

#include "tests/support/placed.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using testing::experts_of_ranks;
using ::testing::HasSubstr;
using testing::input_error;
using testing::loads_of_ranks;
using testing::placed;
using testing::problem_of_loads;

using Loads = std::vector<std::int64_t>;
using Experts = std::vector<std::vector<int>>;

double largest(const std::vector<double>& loads) { return std::ranges::max(loads); }

TEST(SmartMoe, MovesExpertsHeaviestFirstToTheLightestRank) {
  // 9 stays on rank 0 (a tie), 8 goes to rank 1, 2 to rank 1 (8 < 9), 1 to rank 0: largest 10 instead of 17.
  const Placement p = placed("smartmoe", problem_of_loads({{9, 8, 2, 1}}, 2))[0];
  EXPECT_EQ(experts_of_ranks(p), (Experts{{0, 3}, {1, 2}}));
  EXPECT_TRUE(p.share.empty());
}

TEST(SmartMoe, StaysWhereItIsIfThatTies) {
  Problem problem = problem_of_loads({{5, 5, 5, 5}}, 2);
  problem.previous = {Placement::from_experts({2, 3, 0, 1}, {0, 2, 4}, 4)};
  EXPECT_EQ(experts_of_ranks(placed("smartmoe", problem)[0]), (Experts{{2, 3}, {0, 1}}));
  // Expert 1 (9) finds both ranks empty and stays on rank 1; 2 (8) goes to rank 0, and 3 (2) too, where it is 8 against 9; 0 (1) takes the last slot, on
  // rank 1.
  problem.counts[0].cells = {1, 9, 8, 2};
  problem.previous = {Placement::from_experts({0, 3, 2, 1}, {0, 2, 4}, 4)};
  EXPECT_EQ(experts_of_ranks(placed("smartmoe", problem)[0]), (Experts{{2, 3}, {0, 1}}));
}

TEST(SmartMoe, AdoptsOnlyWhatLowersTheLargestLoad) {
  // The textbook case for longest first: {3, 3, 0} and {2, 2, 2} are optimal, and it would make {3, 2, 2} and {3, 2, 0} of them.
  Problem problem = problem_of_loads({{3, 3, 2, 2, 2, 0}}, 2);
  problem.previous = {Placement::from_experts({0, 1, 5, 2, 3, 4}, {0, 3, 6}, 6)};
  EXPECT_EQ(experts_of_ranks(placed("smartmoe", problem)[0]), (Experts{{0, 1, 5}, {2, 3, 4}})) << "6 and 6, not 7 and 5";
}

TEST(EpsimOpt, GivesRanksUnequalNumbersWhereTheyHaveRoom) {
  // With four experts a rank the hot one has three others beside it; where ranks have room for seven, it is alone.
  const Loads loads = {100, 10, 10, 10, 10, 10, 10, 10};
  const Problem problem = problem_of_loads({loads}, 2);
  EXPECT_EQ(largest(loads_of_ranks(placed("epsim_opt", problem)[0], loads)), 130);
  const Placement roomy = placed("epsim_opt: {rank_slots: 7}", problem)[0];
  EXPECT_EQ(largest(loads_of_ranks(roomy, loads)), 100);
  EXPECT_EQ(roomy.slots(), 8);
  EXPECT_THAT(input_error([&] { placed("epsim_opt: {rank_slots: 3}", problem); }), HasSubstr("fewer than the 8 slots"));
}

TEST(LeastLoad, HasTheLowestFullestRankOfAll) {
  // Twelve experts of DeepSeek's EPLB example on 8 ranks of two slots: EPLB's own fullest rank is higher. Optima by enumeration (least_load_test.cpp).
  const Loads loads = {90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86};
  const Problem problem = problem_of_loads({loads}, 8);
  EXPECT_NEAR(largest(loads_of_ranks(placed("least_load: {slots: 16}", problem)[0], loads)), 136, 1e-9);
  EXPECT_GT(largest(loads_of_ranks(placed("eplb: {slots: 16}", problem)[0], loads)), 136);
  const Placement free = placed("least_load: {slots: 16, split: free}", problem)[0];
  EXPECT_EQ(free.share.size(), 16U);
}

TEST(LeastLoad, DoesNotCallAnythingElseTheOptimum) {
  const Problem problem = problem_of_loads({{20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27}}, 8);
  EXPECT_THAT(input_error([&] { placed("least_load: {slots: 16, split: free, nodes: 1}", problem); }), HasSubstr("not proven"));
}

TEST(Lplb, DuplicatesByTheCubesTable) {
  // 16 experts of falling load: longest first deals 0 to 7 to ranks 0 to 7 and 15 to 8 back, so that rank r holds r and 15 - r.
  Loads loads;
  for (int e = 0; e < 16; ++e) loads.push_back(100 - e);
  const Placement p = placed("lplb: {topology: cube}", problem_of_loads({loads}, 8))[0];
  // The first redundant slot duplicates the first slot of ranks 3 0 1 2 7 4 5 6, the second the second slot of 6 7 4 5 0 1 2 3 (LPLB's table).
  EXPECT_EQ(experts_of_ranks(p),
            (Experts{{0, 15, 3, 9}, {1, 14, 0, 8}, {2, 13, 1, 11}, {3, 12, 2, 10}, {4, 11, 7, 15}, {5, 10, 4, 14}, {6, 9, 5, 13}, {7, 8, 6, 12}}));
  EXPECT_THAT(p.slots_of_expert[0], ElementsAre(Slot(0), Slot(6)));
  EXPECT_THAT(p.slots_of_expert[3], ElementsAre(Slot(12), Slot(2))) << "the packed replica comes first";
  EXPECT_TRUE(p.share.empty());
}

TEST(Lplb, DuplicatesTheHeaviestOfTheRankBeforeInARing) {
  const Placement p = placed("lplb", problem_of_loads({{1, 2, 3, 9, 8, 7}}, 3))[0];
  EXPECT_EQ(experts_of_ranks(p), (Experts{{3, 0, 5}, {4, 1, 3}, {5, 2, 4}}));
  EXPECT_EQ(placed("lplb", problem_of_loads({{1, 2, 3}}, 1))[0].slots(), 3) << "a ring of one has no neighbour";
  EXPECT_EQ(experts_of_ranks(placed("lplb", problem_of_loads({{1, 9}}, 4))[0]), (Experts{{1}, {0, 1}, {0}, {}}))
      << "ranks without experts have nothing to duplicate";
}

TEST(Lplb, LeavesOneExpertARankWhereItIs) {
  EXPECT_EQ(experts_of_ranks(placed("lplb", problem_of_loads({{1, 9, 5}}, 3))[0]), (Experts{{0, 2}, {1, 0}, {2, 1}}));
}

/// Pairs of ranks that share an expert.
std::multiset<std::set<int>> edges(const Placement& p) {
  std::multiset<std::set<int>> out;
  for (const std::vector<Slot>& replicas : p.slots_of_expert)
    if (replicas.size() > 1) out.insert({p.rank_of(replicas[0]), p.rank_of(replicas[1])});
  return out;
}

TEST(Lplb, JoinsEveryEdgeOfTheHypercubeOnce) {
  std::multiset<std::set<int>> expected;
  for (int r = 0; r < 16; ++r)
    for (const int bit : {1, 2, 4, 8})
      if (r & bit) expected.insert({r, r ^ bit});
  EXPECT_EQ(edges(placed("lplb: {topology: hypercube}", problem_of_loads({Loads(32, 1)}, 16))[0]), expected);
}

TEST(Lplb, JoinsEveryEdgeOfTheTorusOnce) {
  std::multiset<std::set<int>> expected;
  for (int row = 0; row < 3; ++row)
    for (int column = 0; column < 5; ++column) {
      expected.insert({row * 5 + column, row * 5 + (column + 1) % 5});
      expected.insert({row * 5 + column, (row + 1) % 3 * 5 + column});
    }
  EXPECT_EQ(edges(placed("lplb: {topology: torus, rows: 3, columns: 5}", problem_of_loads({Loads(30, 1)}, 15))[0]), expected);
  EXPECT_EQ(edges(placed("lplb: {topology: torus}", problem_of_loads({Loads(30, 1)}, 15, 3))[0]), expected) << "nodes are the rows";
}

TEST(Lplb, RepeatsASmallerShapeOverTheMachine) {
  const std::multiset<std::set<int>> two = edges(placed("lplb: {topology: cube}", problem_of_loads({Loads(32, 1)}, 16))[0]);
  EXPECT_EQ(two.size(), 32U);
  for (const std::set<int>& e : two) EXPECT_EQ(*e.begin() / 8, *e.rbegin() / 8);
}

// The example in the README of github.com/deepseek-ai/EPLB; global mode gives 138.5 and 172.0.
const std::vector<Loads> kReadmeLoads = {{90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86}, {20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27}};

TEST(Vibe, BalancesAsEplbWhereRanksAreAlike) {
  const std::vector<Placement> p = placed("vibe: {slots: 16}", problem_of_loads(kReadmeLoads, 8));
  EXPECT_DOUBLE_EQ(largest(loads_of_ranks(p[0], kReadmeLoads[0])), 138.5);
  EXPECT_DOUBLE_EQ(largest(loads_of_ranks(p[1], kReadmeLoads[1])), 172.0);
  const Loads skewed = {600, 560, 120, 120, 20, 10, 10, 10};
  EXPECT_DOUBLE_EQ(largest(loads_of_ranks(placed("vibe: {slots: 16}", problem_of_loads({skewed}, 8))[0], skewed)),
                   232.0);  // the number quoted in vLLM pull request 37656
}

TEST(Vibe, GivesSlowRanksLess) {
  // Speeds 1 and 1/2. 6 goes to rank 0 (6 < 12), 5 to rank 1 (10 < 11), 4 to rank 0 (10 < 18), 3 is left with rank 1: 10 and 16 against 22 the other way.
  const Loads loads = {6, 5, 4, 3};
  EXPECT_EQ(experts_of_ranks(placed("vibe: {slots: 4, speeds: [1, 0.5]}", problem_of_loads({loads}, 2))[0]), (Experts{{0, 2}, {1, 3}}));
  EXPECT_EQ(experts_of_ranks(placed("vibe: {slots: 4, speeds: [0.5, 1]}", problem_of_loads({loads}, 2))[0]), (Experts{{1, 3}, {0, 2}}));
  Problem problem = problem_of_loads({{6, 1, 1, 1}}, 2);
  problem.speed = {0.5, 1};
  EXPECT_EQ(experts_of_ranks(placed("vibe: {slots: 4}", problem)[0]), (Experts{{1, 2}, {0, 3}})) << "the ranks' own speeds";
  EXPECT_EQ(experts_of_ranks(placed("vibe: {slots: 4, speeds: [1]}", problem)[0]), (Experts{{0, 3}, {1, 2}})) << "a setting goes before them";
}

TEST(Vibe, TakesSlotsThatDoNotDivide) {
  const Placement p = placed("vibe: {slots: 7}", problem_of_loads({{6, 5, 4, 3}}, 3))[0];
  EXPECT_THAT(p.first_slot, ElementsAre(0, 3, 5, 7));
  EXPECT_EQ(placed("vibe", problem_of_loads({{6, 5, 4, 3}}, 3))[0].slots(), 9) << "4 rounded up to 6, and 3 more";
}

// I11
TEST(PackedPlacements, RefuseBadSettings) {
  const Problem six = problem_of_loads({{1, 2, 3, 4}}, 6, 4);
  EXPECT_THAT(input_error([&] { placed("lplb: {topology: cube}", six); }),
              HasSubstr("test.yaml:1:18: error: 6 ranks do not divide into a cube of 8 ranks each; `ring` takes any number"));
  EXPECT_THAT(input_error([&] { placed("lplb: {topology: torus}", six); }), HasSubstr("6 ranks do not divide over 4 nodes"));
  EXPECT_THAT(input_error([&] { placed("lplb: {topology: torus, rows: 2, columns: 2}", six); }),
              HasSubstr("6 ranks do not divide into a torus of 4 ranks each"));
  EXPECT_THAT(input_error([&] { placed("lplb: {topology: torus, rows: 2}", six); }), HasSubstr("a torus needs `rows` and `columns`, or neither"));
  EXPECT_THAT(input_error([&] { placed("lplb: {rows: 2, columns: 3}", six); }), HasSubstr("`rows` has no use in `topology: ring`"));
  EXPECT_THAT(input_error([&] { placed("vibe: {slots: 3}", six); }), HasSubstr("3 slots are fewer than the 4 experts"));
  EXPECT_THAT(input_error([&] { placed("vibe: {speeds: 3}", six); }), HasSubstr("must be a list of numbers above 0"));
  EXPECT_THAT(input_error([&] { placed("vibe: {speeds: [1, 0]}", six); }), HasSubstr("test.yaml:1:20: error: a speed must be a number above 0"));
  EXPECT_THAT(input_error([&] { placed("vibe: {speeds: [1, 1, 1, 1, 1, 1, 1]}", six); }), HasSubstr("7 speeds are given for 6 ranks"));
  EXPECT_THAT(input_error([&] { placed("smartmoe: {slots: 8}", six); }), HasSubstr("no setting `slots`"));
}

}  // namespace
}  // namespace epsim
