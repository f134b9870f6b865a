#include <gmock/gmock.h>

#include <numeric>

#include "base/rng.h"
#include "policies/solve/integer_program.h"
#include "policies/solve/linear_program.h"
#include "policies/solve/min_max_split.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
constexpr double kInfinity = LinearProgram::kInfinity;

TEST(LinearProgram, FindsTheCornerOfLeastCost) {
  // Dantzig's example: the most of 3x + 5y, x <= 4, 2y <= 12, 3x + 2y <= 18, is 36 at (2, 6).
  LinearProgram p;
  p.add_column({.high = 4, .cost = -3});
  p.add_column({.cost = -5});
  p.add_row(-kInfinity, 12, {{1, 2}});
  p.add_row(-kInfinity, 18, {{0, 3}, {1, 2}});
  const LinearSolution s = solve(p);
  ASSERT_EQ(s.status, SolveStatus::optimal);
  EXPECT_NEAR(s.cost, -36, 1e-9);
  EXPECT_NEAR(s.values[0], 2, 1e-9);
  EXPECT_NEAR(s.values[1], 6, 1e-9);
}

TEST(LinearProgram, SaysWhyThereIsNoSolution) {
  LinearProgram p;
  p.add_column({.high = 1});
  p.add_row(2, kInfinity, {{0, 1}});
  EXPECT_EQ(solve(p).status, SolveStatus::infeasible);
  LinearProgram q;
  q.add_column({.cost = -1});
  EXPECT_EQ(solve(q).status, SolveStatus::unbounded);
  q.add_row(0, 1, {{1, 1}});
  EXPECT_THROW(solve(q), std::logic_error);
}

TEST(IntegerProgram, KnapsackByEnumeration) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    Rng rng(seed, Stream::test, 77);
    IntegerProgram p;
    std::vector<int> value, weight;
    std::vector<LinearProgram::Term> load;
    for (int i = 0; i < 10; ++i) {
      value.push_back(1 + static_cast<int>(rng.below(40))), weight.push_back(1 + static_cast<int>(rng.below(30)));
      p.add_column({.high = 1, .cost = -static_cast<double>(value.back())}, true);
      load.push_back({i, static_cast<double>(weight.back())});
    }
    const int room = std::accumulate(weight.begin(), weight.end(), 0) / 2;
    p.linear.add_row(-kInfinity, room, load);
    int best = 0;
    for (int set = 0; set < 1024; ++set) {
      int v = 0, w = 0;
      for (int i = 0; i < 10; ++i)
        if (set >> i & 1) v += value[static_cast<std::size_t>(i)], w += weight[static_cast<std::size_t>(i)];
      if (w <= room) best = std::max(best, v);
    }
    const IntegerSolution s = solve(p);
    ASSERT_EQ(s.status, SolveStatus::optimal);
    EXPECT_NEAR(s.cost, -best, 1e-6);
    EXPECT_NEAR(s.bound, -best, 1e-6);
    EXPECT_EQ(solve(p).values, s.values);
  }
}

TEST(IntegerProgram, StatesAndBounds) {
  IntegerProgram p;  // 2x = 1 has a half, no whole
  p.add_column({.high = 1}, true);
  p.linear.add_row(1, 1, {{0, 2}});
  EXPECT_EQ(solve(p).status, SolveStatus::infeasible);
  IntegerProgram q;
  q.add_column({.high = 1}, true);
  q.linear.add_row(3, kInfinity, {{0, 2}});
  EXPECT_EQ(solve(q).status, SolveStatus::infeasible);
  q.whole.clear();
  EXPECT_THROW(solve(q), std::logic_error);
}

std::int64_t fullest(const Split& s, const std::vector<std::vector<int>>& places, int bins) {
  std::vector<std::int64_t> load(static_cast<std::size_t>(bins));
  for (std::size_t i = 0; i < places.size(); ++i)
    for (std::size_t j = 0; j < places[i].size(); ++j) load[static_cast<std::size_t>(places[i][j])] += s.amounts[i][j];
  return *std::ranges::max_element(load);
}

TEST(MinMaxSplit, ByHand) {
  // 10 may go to both bins, 4 to the first only: 7 and 7.
  const Split s = min_max_split(std::vector<std::int64_t>{10, 4}, {{0, 1}, {0}}, 2);
  EXPECT_EQ(s.fullest, 7);
  EXPECT_THAT(s.amounts[0], ElementsAre(3, 7));
  EXPECT_THAT(s.amounts[1], ElementsAre(4));
  // A chain: the load of bin 0 is relieved through bin 1 into bin 2.
  EXPECT_EQ(min_max_split(std::vector<std::int64_t>{9, 3, 0}, {{0, 1}, {1, 2}, {2}}, 3).fullest, 5) << "9 has two bins only";
  EXPECT_EQ(min_max_split(std::vector<std::int64_t>{6, 6, 0}, {{0, 1}, {1, 2}, {2}}, 3).fullest, 4);
  EXPECT_EQ(min_max_split(std::vector<std::int64_t>{0, 0}, {{0, 1}, {0}}, 2).fullest, 0);
  EXPECT_EQ(min_max_split(std::vector<std::int64_t>{9}, {{1, 1}}, 2).fullest, 9);
  EXPECT_THAT(min_max_split(std::vector<std::int64_t>{9}, {{0, 1}}, 2).amounts[0], ElementsAre(4, 5)) << "even";
}

// The least ceiling is the largest, over sets of bins, of the load that has no other bins per bin (Hall's condition for splits in whole parts): all sets are tried.
TEST(MinMaxSplit, IsTheWorstSetOfBins) {
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    Rng rng(seed, Stream::test, 78);
    const int bins = 1 + static_cast<int>(rng.below(7)), items = 1 + static_cast<int>(rng.below(12));
    std::vector<std::int64_t> loads;
    std::vector<std::vector<int>> places(static_cast<std::size_t>(items));
    std::vector<int> mask;
    for (auto& p : places) {
      loads.push_back(rng.below(4) == 0 ? 0 : static_cast<std::int64_t>(rng.below(rng.below(2) ? 1000 : 10)));
      mask.push_back(0);
      for (std::uint64_t n = 1 + rng.below(4); n > 0; --n) p.push_back(static_cast<int>(rng.below(static_cast<std::uint64_t>(bins)))), mask.back() |= 1 << p.back();
    }
    std::int64_t least = 0;
    for (int set = 1; set < 1 << bins; ++set) {
      std::int64_t captive = 0;
      for (std::size_t i = 0; i < loads.size(); ++i)
        if ((mask[i] & ~set) == 0) captive += loads[i];
      const int n = __builtin_popcount(static_cast<unsigned>(set));
      least = std::max(least, (captive + n - 1) / n);
    }
    const Split s = min_max_split(loads, places, bins);
    ASSERT_EQ(s.fullest, least) << "case " << seed;
    EXPECT_EQ(fullest(s, places, bins), least);
    for (std::size_t i = 0; i < loads.size(); ++i) {
      EXPECT_EQ(std::accumulate(s.amounts[i].begin(), s.amounts[i].end(), std::int64_t{0}), loads[i]);
      for (const std::int64_t a : s.amounts[i]) EXPECT_GE(a, 0);
    }
  }
}

}  // namespace
}  // namespace epsim
