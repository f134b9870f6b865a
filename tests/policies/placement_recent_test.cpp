// Which batches tell of the next ones, and what epsim_opt makes of it.
#include <gtest/gtest.h>

#include <algorithm>

#include "policies/placement/shared/recent.h"
#include "policies/placement/shared/resample.h"
#include "tests/support/placed.h"

namespace epsim {
namespace {

using testing::experts_of_ranks;
using testing::placed;

using Loads = std::vector<std::int64_t>;

/// A layer of batches of these loads [batch][E] on two ranks: a choice a token, on home ranks in turn, and as long as the fullest rank has copies.
Problem problem_of_batches(const std::vector<Loads>& batches) {
  Problem p;
  p.experts = static_cast<int>(batches[0].size()), p.ranks = 2, p.nodes = 1, p.seed = 42, p.layers = {0};
  p.counts.emplace_back(1, p.experts), p.batches.emplace_back(static_cast<std::int64_t>(batches.size()), p.experts), p.tokens.emplace_back();
  for (std::size_t b = 0; b < batches.size(); ++b) {
    const auto routing = std::make_shared<Routing>();
    routing->experts = p.experts, routing->top_k = 1;
    for (int e = 0; e < p.experts; ++e) {
      const std::int64_t n = batches[b][static_cast<std::size_t>(e)];
      routing->expert.insert(routing->expert.end(), static_cast<std::size_t>(n), static_cast<std::uint16_t>(e));
      p.counts[0](0, e) += n, p.batches[0](static_cast<std::int64_t>(b), e) = n;
    }
    const auto tokens = static_cast<std::int64_t>(routing->expert.size());
    routing->weight.assign(routing->expert.size(), 1.0F), routing->first_token = {0, tokens / 2, tokens};
    p.tokens[0].push_back(routing);
  }
  p.batch_seconds = [](std::size_t, const Routing& batch, const Placement& placement) {
    Loads loads(static_cast<std::size_t>(batch.experts));
    for (const std::uint16_t e : batch.expert) ++loads[e];
    return std::ranges::max(testing::loads_of_ranks(placement, loads));
  };
  return p;
}

const Loads kA = {10, 0, 0}, kB = {0, 10, 0}, kC = {0, 0, 10};

TEST(TellingBatches, AreAllWherePopularityStays) {
  EXPECT_EQ(telling_batches(problem_of_batches({kA, kA, kA, kA, kA, kA, kA, kA})), 8U);
  EXPECT_EQ(telling_batches(problem_of_batches({kA, kB, kA, kB, kA, kB, kA, kB})), 8U) << "the mean of both is less wrong than either";
}

TEST(TellingBatches, AreAllWhereWhatWasComesBack) { EXPECT_EQ(telling_batches(problem_of_batches({kA, kA, kB, kB, kC, kC, kA, kA})), 8U); }

TEST(TellingBatches, AreTheLastWherePopularityMoves) {
  std::vector<Loads> moving, there_and_on;
  for (int b = 0; b < 8; ++b) moving.push_back({40 - 4 * b, 4 * b}), there_and_on.push_back({40 - 4 * b + b % 2, 4 * b - b % 2});
  EXPECT_EQ(telling_batches(problem_of_batches(moving)), 2U);
  EXPECT_EQ(telling_batches(problem_of_batches(there_and_on)), 2U);
}

TEST(TellingBatches, AreAllWhereABurstIsNoTrend) {
  // Half of what is known was a burst, early or late: batches 4 or more apart differ no more the farther they are apart, so nothing says that it goes on, or not.
  EXPECT_EQ(telling_batches(problem_of_batches({kA, kA, kA, kA, kB, kB, kB, kB})), 8U);
  // With a burst's end in sight the few pairs that are farthest apart differ less than those before: that is no reason to trust what is old, either.
  EXPECT_EQ(telling_batches(problem_of_batches({kA, kA, kB, kB, kB, kB, kA, kA})), 8U);
}

TEST(TellingBatches, AreAllWhereAHotSpotGoesRound) {
  // Each batch has a hot expert of its own: any two differ as much. Sizes that differ by chance make the farthest differ a little more than those before, and that is no trend.
  std::vector<Loads> batches(8, Loads(8, 10));
  for (std::size_t b = 0; b < batches.size(); ++b) batches[b][b] = b == 0 || b == 7 ? 33 : 30;
  EXPECT_EQ(telling_batches(problem_of_batches(batches)), 8U);
}

TEST(TellingBatches, AreAllOfAFew) {
  EXPECT_EQ(telling_batches(problem_of_batches({{40, 0}, {35, 5}, {30, 10}, {25, 15}, {20, 20}, {15, 25}, {10, 30}})), 7U);
  EXPECT_EQ(telling_batches(problem_of_batches({{40, 0}, {35, 5}, {30, 10}, {25, 15}, {20, 20}, {15, 25}, {10, 30}, {5, 35}})), 2U);
}

TEST(WithBatches, KeepsTokensAndCountsOfThose) {
  const Problem part = with_batches(problem_of_batches({kA, kB, kC}), [](std::size_t b) { return b != 1; });
  EXPECT_EQ(part.tokens[0].size(), 2U);
  EXPECT_EQ(part.counts[0].cells, (Loads{10, 0, 10}));
  EXPECT_EQ(part.batches[0].cells, (Loads{10, 0, 0, 0, 0, 10}));
}

/// The mean over experts of the variance of what share of the mean load they have in a batch.
double spread_of(const Matrix<std::int64_t>& loads) {
  double spread = 0;
  for (std::int64_t e = 0; e < loads.columns; ++e) {
    double sum = 0, squares = 0;
    for (std::int64_t b = 0; b < loads.rows; ++b) sum += static_cast<double>(loads(b, e)), squares += static_cast<double>(loads(b, e) * loads(b, e));
    const double mean = sum / static_cast<double>(loads.rows);
    spread += (squares / static_cast<double>(loads.rows) / (mean * mean) - 1) / static_cast<double>(loads.columns);
  }
  return spread;
}

TEST(Mixed, BatchesDifferAsThoseShownDo) {
  // An eighth of the experts is three times as popular as the rest, in each batch another.
  std::vector<Loads> batches(8, Loads(32, 400));
  for (std::size_t b = 0; b < batches.size(); ++b)
    for (std::size_t e = b; e < 32; e += 8) batches[b][e] = 1'200;
  const Problem shown = problem_of_batches(batches), made = mixed(shown, 8);
  ASSERT_EQ(made.batches[0].rows, 64);
  EXPECT_GT(spread_of(shown.batches[0]), 0.25);
  EXPECT_NEAR(spread_of(made.batches[0]) / spread_of(shown.batches[0]), 1 + 1.0 / 8, 0.4) << "a variance from 64 batches";
  EXPECT_NE(made.counts[0].cells, Loads(32, 8 * (7 * 400 + 1'200))) << "drawn, not dealt";
}

TEST(Mixed, AlikeOrFewBatchesAreDealt) {
  std::vector<Loads> batches(7, Loads(32, 10));
  for (std::size_t b = 0; b < batches.size(); ++b) batches[b][b] = 100;  // seven do not say how much the next differs
  Loads sums(32, 2 * 70);
  for (std::size_t b = 0; b < batches.size(); ++b) sums[b] = 2 * 160;
  EXPECT_EQ(mixed(problem_of_batches(batches), 2).counts[0].cells, sums);
  std::vector<Loads> alike(8, Loads(32, 100));
  for (std::size_t b = 0; b < alike.size(); ++b) alike[b][b] += 10, alike[b][b + 8] -= 10;  // as chance does
  Loads all(32, 2 * 800);
  for (std::size_t b = 0; b < alike.size(); ++b) all[b] += 20, all[b + 8] -= 20;
  EXPECT_EQ(mixed(problem_of_batches(alike), 2).counts[0].cells, all);
}

TEST(Mixed, TokensKeepTheirPriorities) {
  Problem problem = problem_of_batches({kA, kB, kC});
  for (auto& batch : problem.tokens[0]) {
    Routing r = *batch;
    for (const std::uint16_t e : r.expert) r.priority.push_back(static_cast<float>(e));
    r.seed = 7, r.number = 10 * static_cast<std::int64_t>(r.expert[0]);
    batch = std::make_shared<const Routing>(std::move(r));
  }
  const Problem made = mixed(problem, 1);
  for (std::size_t b = 0; b < 3; ++b) {
    const Routing& r = *made.tokens[0][b];
    ASSERT_EQ(r.priority.size(), 10U);
    for (std::size_t t = 0; t < 10; ++t) EXPECT_EQ(r.priority[t], static_cast<float>(r.expert[t]));
    EXPECT_EQ(r.seed, 7U);
    EXPECT_EQ(r.number, problem.tokens[0][b]->number);
  }
}

TEST(EpsimOpt, GoesByTheLastBatchesWherePopularityMoves) {
  // Experts 0 and 1 together: 280 copies on the fullest rank at first, 168 at last; apart: 392, then 112. Over all batches together is quicker, and not from now on.
  const auto together = [](const Placement& p) { return p.rank_of(p.slots_of_expert[0][0]) == p.rank_of(p.slots_of_expert[1][0]); };
  std::vector<Loads> batches;
  for (const std::int64_t later : {0, 1, 2, 3, 4, 5, 6, 7}) batches.push_back({140 - 8 * later, 140 - 8 * later, 252 - 36 * later, 28});
  const Problem problem = problem_of_batches(batches);
  EXPECT_FALSE(together(placed("epsim_opt", problem)[0]));
  EXPECT_TRUE(together(placed("epsim_opt: {generalise: false}", problem)[0]));
}

TEST(EpsimOpt, LeavesExpertsWhereTheyAreUnlessThatGainsSomething) {
  const Loads even = {5, 5, 5, 5};
  Problem problem = problem_of_batches({even, even, even, even});
  problem.batch_seconds = [](std::size_t, const Routing&, const Placement&) { return 1.0; };
  EXPECT_EQ(experts_of_ranks(placed("epsim_opt", problem)[0]), (std::vector<std::vector<int>>{{0, 1}, {2, 3}}));
  problem.previous = {Placement::from_experts({3, 0, 1, 2}, {0, 2, 4}, 4)};
  EXPECT_EQ(experts_of_ranks(placed("epsim_opt", problem)[0]), (std::vector<std::vector<int>>{{3, 0}, {1, 2}}));
}

/// Twelve experts that weigh the same on two ranks, of which the first should have these: how many it lacks is what only a simulation tells.
int lacking(const Placement& p) {
  int n = 0;
  for (const std::size_t e : {0U, 3U, 4U, 8U, 10U, 11U}) n += p.rank_of(p.slots_of_expert[e][0]) != Rank(0);
  return n;
}

TEST(EpsimOpt, FindsBySimulationWhatNoGuessKnows) {
  Problem problem = problem_of_batches({Loads(12, 5)});
  problem.batch_seconds = [](std::size_t, const Routing&, const Placement& p) { return 1.0 + lacking(p); };
  for (const std::string more : {"", ", generalise: false"}) {
    EXPECT_GT(lacking(placed("epsim_opt: {polished: 0" + more + "}", problem)[0]), 0);
    EXPECT_EQ(lacking(placed("epsim_opt: {polished: 1000" + more + "}", problem)[0]), 0);
  }
  const Topology machine = testing::part_from_yaml(builtin_clusters(), "{two_tier: {nodes: 1, ranks_per_node: 2, device: h100}}");
  problem.topology = &machine, problem.previous = placed("contiguous", problem);
  const int before = lacking(problem.previous[0]);
  EXPECT_EQ(lacking(placed("epsim_opt: {budget: 2}", problem)[0]), before - 1) << "one exchange moves two";
}

TEST(EpsimOpt, KeepsNoChangeThatGainsByChance) {
  // Of three batches one gains much by what the others lose by: a little in the mean, and less than how far that is from certain.
  std::vector<Loads> batches(3, Loads(12, 5));
  batches[0][0] = 16, batches[1][0] = batches[2][0] = 0;
  Problem problem = problem_of_batches(batches);
  problem.batch_seconds = [](std::size_t, const Routing& batch, const Placement& p) { return 100.0 + lacking(p) * static_cast<double>(std::ranges::count(batch.expert, 0) - 5); };
  const std::string few = "epsim_opt: {seeds: contiguous, refined: 0, ";
  EXPECT_EQ(lacking(placed(few + "generalise: false}", problem)[0]), 0);
  const int before = lacking(placed(few + "polished: 0}", problem)[0]);
  EXPECT_GT(before, 0);
  EXPECT_EQ(lacking(placed(few + "polished: 1000}", problem)[0]), before);
}

}  // namespace
}  // namespace epsim
