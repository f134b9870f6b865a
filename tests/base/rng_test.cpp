#include "base/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

namespace epsim {
namespace {

TEST(Philox, AgreesWithItsKnownAnswers) {
  // Random123's known answers for philox4x32-10.
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}), (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Rng, DependsOnItsKeyAloneAndNotOnTheOrderOfCalls) {  // I5
  Rng a(1, Stream::scores, 7, 3);
  const std::vector<std::uint64_t> first = {a.bits(), a.bits(), a.bits()};
  Rng other(1, Stream::scores, 8, 3), again(1, Stream::scores, 7, 3);
  for (const std::uint64_t v : first) {
    other.bits();
    EXPECT_EQ(again.bits(), v);
  }
}

TEST(Rng, EveryPartOfTheKeyCounts) {
  std::set<std::uint64_t> seen;
  for (const Stream stream :
       {Stream::popularity, Stream::scores, Stream::choices, Stream::vectors, Stream::gate, Stream::weights, Stream::placement, Stream::test})
    for (const std::uint64_t seed : {0ull, 1ull, 1ull << 32})
      for (const std::uint64_t a : {0ull, 1ull, 1ull << 32})
        for (const std::uint32_t b : {0u, 1u}) {
          Rng rng(seed, stream, a, b);
          for (int i = 0; i < 5; ++i) seen.insert(rng.bits());
        }
  EXPECT_EQ(seen.size(), 8u * 3 * 3 * 2 * 5);
}

TEST(Rng, UniformNumbersAreUniform) {
  Rng rng(3, Stream::test);
  constexpr int n = 100'000;
  double sum = 0, squares = 0;
  for (int i = 0; i < n; ++i) {
    const double v = rng.uniform();
    ASSERT_GT(v, 0);
    ASSERT_LT(v, 1);
    sum += v, squares += v * v;
  }
  EXPECT_NEAR(sum / n, 0.5, 4 * std::sqrt(1.0 / 12 / n));
  EXPECT_NEAR(squares / n, 1.0 / 3, 0.004);
}

TEST(Rng, NormalNumbersAreNormal) {
  Rng rng(4, Stream::test);
  constexpr int n = 100'000;
  double sum = 0, squares = 0, fourth = 0;
  for (int i = 0; i < n; ++i) {
    const double v = rng.normal();
    sum += v, squares += v * v, fourth += v * v * v * v;
  }
  EXPECT_NEAR(sum / n, 0, 4 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1, 4 * std::sqrt(2.0 / n));
  EXPECT_NEAR(fourth / n, 3, 4 * std::sqrt(96.0 / n));
}

TEST(Rng, BelowGivesEveryNumberEquallyOften) {
  Rng rng(5, Stream::test);
  std::vector<int> counts(7);
  for (int i = 0; i < 70'000; ++i) ++counts[rng.below(7)];
  for (const int c : counts) EXPECT_NEAR(c, 10'000, 4 * std::sqrt(10'000.0));
  EXPECT_EQ(rng.below(1), 0u);
}

TEST(Rng, PermutationsHoldEveryNumberOnce) {
  for (const std::size_t n : {0u, 1u, 2u, 257u}) {
    std::vector<std::uint32_t> order(n), sorted(n);
    Rng(6, Stream::test).permutation(order);
    sorted = order;
    std::sort(sorted.begin(), sorted.end());
    for (std::size_t i = 0; i < n; ++i) EXPECT_EQ(sorted[i], i);
  }
  std::vector<int> first(4);
  for (std::uint64_t run = 0; run < 4000; ++run) {
    std::vector<std::uint32_t> order(4);
    Rng(7, Stream::test, run).permutation(order);
    ++first[order[0]];
  }
  for (const int c : first) EXPECT_NEAR(c, 1000, 130);
}

}  // namespace
}  // namespace epsim
