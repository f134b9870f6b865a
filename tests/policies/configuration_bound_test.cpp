#include "policies/configuration_bound.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/rng.h"

namespace epsim {
namespace {

/// One way in and one out, so many seconds a row and expert, whatever the rank.
Configurations layer_of(const std::vector<double>& compute, int ranks, std::int32_t slots) {
  const auto experts = static_cast<std::int64_t>(compute.size());
  Configurations c;
  c.compute = c.enters = c.leaves = Matrix<double>(experts, ranks);
  for (std::int64_t e = 0; e < experts; ++e)
    for (double& s : c.compute.row(e)) s = compute[static_cast<std::size_t>(e)];
  c.slots.assign(static_cast<std::size_t>(ranks), slots);
  return c;
}

double busy(const Configurations& c, std::int64_t rank, const std::vector<std::int64_t>& experts) {
  const auto longest = [&](const std::vector<Configurations::Way>& ways, const Matrix<double>& alone) {
    double most = 0;
    for (const std::int64_t e : experts) most = std::max(most, alone(e, rank));
    for (const Configurations::Way& way : ways) {
      double rows = 0;
      for (const std::int64_t e : experts) rows = c.rows_add ? rows + way.seconds(e, rank) : std::max(rows, way.seconds(e, rank));
      if (rows > 0) most = std::max(most, way.latency + rows);
    }
    return most;
  };
  double seconds = longest(c.in, c.enters) + longest(c.out, c.leaves);
  for (const std::int64_t e : experts) seconds += c.compute(e, rank);
  return seconds;
}

/// The least, over all ways to lay experts on ranks, of what the busiest rank takes.
double by_brute_force(const Configurations& c) {
  const std::int64_t experts = c.compute.rows, ranks = c.compute.columns;
  std::int64_t all = 1;
  for (std::int64_t e = 0; e < experts; ++e) all *= ranks;
  double best = std::numeric_limits<double>::infinity();
  for (std::int64_t code = 0; code < all; ++code) {
    std::vector<std::vector<std::int64_t>> on(static_cast<std::size_t>(ranks));
    for (std::int64_t e = 0, rest = code; e < experts; ++e, rest /= ranks) on[static_cast<std::size_t>(rest % ranks)].push_back(e);
    double most = 0;
    for (std::int64_t r = 0; r < ranks; ++r) {
      const auto& of_rank = on[static_cast<std::size_t>(r)];
      most = std::max(most, std::ssize(of_rank) > c.slots[static_cast<std::size_t>(r)] ? std::numeric_limits<double>::infinity() : busy(c, r, of_rank));
    }
    best = std::min(best, most);
  }
  return best;
}

// Five equal calls on two ranks: one makes three.
TEST(ConfigurationBound, CallsAreNotSplit) { EXPECT_NEAR(configuration_bound(layer_of({1, 1, 1, 1, 1}, 2, 5), 2.5), 3, 0.04); }

// Four equal experts on two ranks, two each. Three of them have their rows by the same way, so that two of these meet: no sum over ranks says so.
TEST(ConfigurationBound, WhoseRowsComeTheSameWayCrowdOneRank) {
  Configurations c = layer_of({2, 2, 2, 2}, 2, 2);
  c.in.push_back({0.5, Matrix<double>(4, 2)}), c.in.push_back({0.5, Matrix<double>(4, 2)});
  for (std::int64_t e = 0; e < 4; ++e)
    for (std::int64_t r = 0; r < 2; ++r) c.in[e < 3 ? 0 : 1].seconds(e, r) = 1;
  EXPECT_NEAR(by_brute_force(c), 6.5, 1e-12) << "three of them come one way, so two of these meet: 0.5 + 2 + 4";
  EXPECT_NEAR(configuration_bound(c, 5.5), 6.5, 0.07);
}

TEST(ConfigurationBound, KeepsWhatWasKnownWhereThereAreTooManySets) {
  EXPECT_EQ(configuration_bound(layer_of(std::vector<double>(32, 1.0), 8, 32), 4), 4);
}

TEST(ConfigurationBound, NoPlacementIsFaster) {
  double closest = 0, mean = 0;
  constexpr int kCases = 150;
  for (std::uint64_t seed = 0; seed < kCases; ++seed) {
    Rng rng(seed, Stream::test, 46);
    const auto pick = [&](int low, int high) { return low + static_cast<int>(rng.below(static_cast<std::uint64_t>(high - low + 1))); };
    const int ranks = pick(1, 4), experts = pick(1, ranks < 4 ? 7 : 6);
    Configurations c = layer_of(std::vector<double>(static_cast<std::size_t>(experts), 0.0), ranks, 0);
    for (double& s : c.compute.cells) s = 0.5 + rng.uniform();
    for (auto* ways : {&c.in, &c.out})
      for (int w = pick(0, 2); w > 0; --w) {
        ways->push_back({0.2 * rng.uniform(), Matrix<double>(experts, ranks)});
        for (double& s : ways->back().seconds.cells) s = rng.below(3) ? rng.uniform() : 0;
      }
    for (auto* alone : {&c.enters, &c.leaves})
      for (double& s : alone->cells) s = rng.below(4) ? 0 : rng.uniform();
    c.rows_add = rng.below(2) == 0;
    for (std::int32_t& s : c.slots) s = pick((experts + ranks - 1) / ranks, experts);
    const double optimum = by_brute_force(c), bound = configuration_bound(c, 0.85 * optimum);
    ASSERT_LE(bound, optimum * (1 + 1e-9)) << "case " << seed;
    closest = std::max(closest, bound / optimum), mean += bound / optimum / kCases;
  }
  EXPECT_GT(closest, 0.99);
  EXPECT_GT(mean, 0.95);
}

}  // namespace
}  // namespace epsim
