#include "policies/crossing_bound.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "base/rng.h"

namespace epsim {
namespace {

/// Tokens of two or three nodes that each choose `k` of `experts`, and every way to lay these on nodes of `slots`, each expert on one node or, with `replicas` of them to spend, on several.
struct Case {
  std::int64_t experts, nodes, slots;
  std::vector<std::vector<int>> choices;
  std::vector<int> home;

  FewestCrossings bound() const {
    std::vector<std::int64_t> tokens(static_cast<std::size_t>(experts) + 1);
    for (const std::vector<int>& of_token : choices) ++tokens[of_token.size()];
    FewestCrossings fewest(wanted(), together(), tokens, slots);
    fewest.find_excess(wanted(), together());
    return fewest;
  }
  Matrix<std::int64_t> wanted() const {
    Matrix<std::int64_t> all(experts, nodes);
    for (std::size_t t = 0; t < choices.size(); ++t)
      for (const int e : choices[t]) ++all(e, home[t]);
    return all;
  }
  Matrix<std::int64_t> together() const {
    Matrix<std::int64_t> all(experts, experts);
    for (const std::vector<int>& of_token : choices)
      for (const int a : of_token)
        for (const int b : of_token) all(a, b) += a != b;
    return all;
  }
  /// Rows that cross where `on[e]` is the set of nodes that hold expert e, and every token goes to as few nodes as it can.
  std::int64_t crossings(const std::vector<unsigned>& on) const {
    std::int64_t rows = 0;
    for (std::size_t t = 0; t < choices.size(); ++t) {
      int least = static_cast<int>(nodes);
      for (unsigned gone = 0; gone < 1U << nodes; ++gone)
        if (std::ranges::all_of(choices[t], [&](int e) { return (on[static_cast<std::size_t>(e)] & (gone | 1U << home[t])) != 0; })) least = std::min(least, std::popcount(gone & ~(1U << home[t])));
      rows += least;
    }
    return rows;
  }
  /// The fewest over all placements, by looking at each.
  std::int64_t fewest(int replicas, std::vector<unsigned> on = {}) const {
    if (static_cast<std::int64_t>(on.size()) == experts) {
      for (std::int64_t n = 0; n < nodes; ++n)
        if (std::ranges::count_if(on, [&](unsigned o) { return (o >> n & 1U) != 0; }) > slots) return 1'000'000;
      return crossings(on);
    }
    std::int64_t least = 1'000'000;
    on.push_back(0);
    for (unsigned o = 1; o < 1U << nodes; ++o)
      if (on.back() = o; std::popcount(o) - 1 <= replicas) least = std::min(least, fewest(replicas - (std::popcount(o) - 1), on));
    return least;
  }
};

// Two nodes, four experts; half of the tokens of each node want experts 0 and 1, the others 2 and 3: with one pair on each node, every token either stays or goes once, and no placement does better.
TEST(FewestCrossings, AreMetWherePairsStayTogether) {
  Case c{4, 2, 2, {}, {}};
  for (int t = 0; t < 80; ++t) c.choices.push_back(t % 2 == 0 ? std::vector{0, 1} : std::vector{2, 3}), c.home.push_back(t / 2 % 2);
  EXPECT_EQ(c.fewest(0), 40);
  EXPECT_NEAR(c.bound().with(0), 40, 0.01);
}

// Every token wants one expert, and all experts are wanted alike by two nodes: half of the tokens have to go, whatever lies where; with all experts on both nodes, none.
TEST(FewestCrossings, OfSingleChoicesAreThoseThatAnotherNodeComputes) {
  Case c{4, 2, 4, {}, {}};
  for (int t = 0; t < 80; ++t) c.choices.push_back({t % 4}), c.home.push_back(t / 4 % 2);
  const FewestCrossings bound = c.bound();
  EXPECT_NEAR(bound.with(0), 40, 1e-6);
  EXPECT_NEAR(bound.with(1), 30, 1e-6);
  EXPECT_NEAR(bound.with(4), 0, 1e-6);
}

TEST(FewestCrossings, NoPlacementHasFewer) {
  double closest = 0;
  for (std::uint64_t seed = 0; seed < 150; ++seed) {
    Rng rng(seed, Stream::test, 71);
    Case c{4 + static_cast<std::int64_t>(rng.below(2)), 2 + static_cast<std::int64_t>(rng.below(2)), 0, {}, {}};
    c.slots = (c.experts + c.nodes - 1) / c.nodes + static_cast<std::int64_t>(rng.below(2));
    for (std::uint64_t t = 0; t < 5 + rng.below(40); ++t) {
      std::vector<int> chosen;
      for (int e = 0; e < c.experts; ++e)
        if (rng.below(2) == 0) chosen.push_back(e);
      c.choices.push_back(chosen), c.home.push_back(static_cast<int>(rng.below(static_cast<std::uint64_t>(c.nodes))));
    }
    const FewestCrossings bound = c.bound();
    for (const int replicas : {0, 1, 2}) {
      const auto fewest = static_cast<double>(c.fewest(replicas));
      ASSERT_LE(bound.with(replicas), fewest + 1e-6) << "seed " << seed << ", " << replicas << " replicas";
      if (fewest > 0) closest = std::max(closest, bound.with(replicas) / fewest);
    }
  }
  EXPECT_GT(closest, 0.9);
}

// Every pair of four experts is wanted by as many tokens, as independent choices would be but for an expert and itself: what two nodes of two experts each have in common is then known exactly. A third of the tokens has
// both experts in one node, which is home to half of these; all others have to go.
TEST(FewestCrossings, AreMetWhereAllPairsAreAlike) {
  Case c{4, 2, 4, {}, {}};
  for (int a = 0; a < 4; ++a)
    for (int b = 0; b < a; ++b)
      for (int t = 0; t < 20; ++t) c.choices.push_back({b, a}), c.home.push_back(t % 2);
  EXPECT_EQ(c.crossings({1, 1, 2, 2}), 100);
  EXPECT_NEAR(c.bound().balanced(120), 100, 0.02);
  EXPECT_LT(c.bound().balanced(1000), 70) << "all in one node";
  EXPECT_LE(c.bound().touched(120), 100);
  EXPECT_GT(c.bound().touched(120), 70);
}

TEST(FewestCrossings, NoBalancedPlacementHasFewer) {
  double closest = 0, closest_touched = 0;
  for (std::uint64_t seed = 0; seed < 80; ++seed) {
    Rng rng(seed, Stream::test, 72);
    Case c{2 + static_cast<std::int64_t>(rng.below(3)), 2 + static_cast<std::int64_t>(rng.below(2)), 0, {}, {}};
    c.slots = c.experts;
    for (std::uint64_t t = 0; t < 5 + rng.below(60); ++t) {
      std::vector<int> chosen;
      const bool group = rng.below(2) == 0;  // some experts are wanted together
      for (int e = 0; e < c.experts; ++e)
        if (group ? e < 2 : rng.below(3) == 0) chosen.push_back(e);
      c.choices.push_back(chosen), c.home.push_back(static_cast<int>(rng.below(static_cast<std::uint64_t>(c.nodes))));
    }
    const FewestCrossings bound = c.bound();
    std::vector<std::int64_t> at(static_cast<std::size_t>(c.experts));
    for (std::size_t moved = 0; moved < at.size();) {
      std::vector<unsigned> on;
      for (const std::int64_t n : at) on.push_back(1U << n);
      double most = 0;
      for (std::int64_t n = 0; n < c.nodes; ++n) {
        double copies = 0, touched = 0;
        for (const std::vector<int>& of_token : c.choices) {
          const auto here = std::ranges::count_if(of_token, [&](int e) { return at[static_cast<std::size_t>(e)] == n; });
          copies += static_cast<double>(here), touched += here > 0;
        }
        most = std::max(most, copies);
        ASSERT_LE(bound.touched(copies), touched + 1e-6) << "seed " << seed;
        if (touched > 0) closest_touched = std::max(closest_touched, bound.touched(copies) / touched);
      }
      const auto crossings = static_cast<double>(c.crossings(on));
      ASSERT_LE(bound.balanced(most), crossings + 1e-6) << "seed " << seed;
      if (crossings > 0) closest = std::max(closest, bound.balanced(most) / crossings);
      for (moved = 0; moved < at.size() && ++at[moved] == c.nodes; ++moved) at[moved] = 0;
    }
  }
  EXPECT_GT(closest, 0.9);
  EXPECT_GT(closest_touched, 0.8);
}

}  // namespace
}  // namespace epsim
