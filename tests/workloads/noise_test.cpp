#include "workloads/noise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "workloads/scores.h"

namespace epsim {
namespace {

constexpr int kExperts = 16;
constexpr std::int64_t kTokens = 200'000;

/// Odds of tokens, row by row.
std::vector<float> odds(std::uint64_t seed, int layer, std::int64_t first, std::int64_t count, const std::vector<float>& scales) {
  const auto experts = static_cast<std::int64_t>(scales.size());
  std::vector<float> blocks(score_count(count, experts)), rows;
  draw_odds(seed, layer, first, count, scales, blocks);
  for (std::int64_t i = 0; i < count * experts; ++i) rows.push_back(blocks[score_index(i / experts, i % experts, experts)]);
  return rows;
}

/// The logits that odds of equal popularity stand for.
const std::vector<float>& noise() {
  static const std::vector<float> all = [] {
    std::vector<float> out = odds(1, 2, 0, kTokens, std::vector<float>(kExperts, -1.0F));
    for (float& x : out) x = static_cast<float>(-std::log(-static_cast<double>(x)));
    return out;
  }();
  return all;
}

/// The standard Gumbel distribution maps its draws to uniform numbers.
double uniform(float gumbel) { return std::exp(-std::exp(-static_cast<double>(gumbel))); }

/// (chi-square - degrees) / sqrt(2 degrees): about standard normal.
double excess(const std::vector<std::int64_t>& counts, const std::vector<double>& expected) {
  double chi = 0;
  for (std::size_t i = 0; i < counts.size(); ++i)
    chi += (static_cast<double>(counts[i]) - expected[i]) * (static_cast<double>(counts[i]) - expected[i]) / expected[i];
  const double degrees = static_cast<double>(counts.size()) - 1;
  return (chi - degrees) / std::sqrt(2 * degrees);
}

TEST(Noise, HasTheMomentsOfTheGumbelDistribution) {
  double mean = 0, square = 0, cube = 0;
  const auto n = static_cast<double>(noise().size());
  for (float g : noise()) mean += g / n;
  for (float g : noise()) square += (g - mean) * (g - mean) / n, cube += std::pow(g - mean, 3) / n;
  constexpr double kVariance = 1.6449340668;  // pi^2 / 6
  EXPECT_NEAR(mean, 0.5772156649, 4 * std::sqrt(kVariance / n));
  EXPECT_NEAR(square, kVariance, 4 * std::sqrt(4.4 * kVariance * kVariance / n));
  EXPECT_NEAR(cube / std::pow(square, 1.5), 1.1395470994, 0.02);
}

TEST(Noise, FollowsTheDistributionInEveryTwoHundredthAndInTheTails) {
  std::vector<std::int64_t> bins(200);
  std::int64_t high = 0, low = 0;
  for (float g : noise()) {
    const double u = uniform(g);
    ++bins[std::min<std::size_t>(static_cast<std::size_t>(u * 200), 199)];
    high += u > 1 - 1e-4, low += u < 1e-4;
  }
  EXPECT_LT(std::abs(excess(bins, std::vector<double>(200, static_cast<double>(noise().size()) / 200))), 4);
  EXPECT_NEAR(static_cast<double>(high), 320, 4 * std::sqrt(320.0));
  EXPECT_NEAR(static_cast<double>(low), 320, 4 * std::sqrt(320.0));
}

TEST(Noise, NeighboursAreIndependent) {
  // Pairs of (token, expert) at several distances fall evenly on a 16 x 16 grid.
  for (const auto& [tokens, experts] : std::vector<std::pair<int, int>>{{0, 1}, {0, 2}, {0, 8}, {1, 0}, {1, 1}, {2, 0}, {1, -1}, {256, 0}}) {
    std::vector<std::int64_t> bins(256);
    std::int64_t pairs = 0;
    for (std::int64_t t = 0; t + tokens < kTokens; ++t)
      for (int e = std::max(0, -experts); e + std::max(0, experts) < kExperts; ++e, ++pairs) {
        const auto cell = [&](std::int64_t token, int expert) {
          return std::min(15, static_cast<int>(16 * uniform(noise()[static_cast<std::size_t>(token * kExperts + expert)])));
        };
        ++bins[static_cast<std::size_t>(16 * cell(t, e) + cell(t + tokens, e + experts))];
      }
    EXPECT_LT(std::abs(excess(bins, std::vector<double>(256, static_cast<double>(pairs) / 256))), 4.5) << tokens << ", " << experts;
  }
}

TEST(Noise, TheBestExpertFollowsThePopularity) {
  std::vector<double> popularity(kExperts);
  double sum = 0;
  for (int e = 0; e < kExperts; ++e) sum += popularity[static_cast<std::size_t>(e)] = 1.0 / (1 + (5 * e) % kExperts);
  std::vector<float> scales;
  for (double p : popularity) scales.push_back(static_cast<float>(-1 / p));
  const std::vector<float> scores = odds(9, 0, 1'000'000, kTokens, scales);
  std::vector<std::int64_t> first(kExperts);
  std::vector<double> expected;
  for (double p : popularity) expected.push_back(p / sum * kTokens);
  std::int64_t second_after_0 = 0, first_0 = 0, second_is_1 = 0;
  for (std::int64_t t = 0; t < kTokens; ++t) {
    const auto row = scores.begin() + t * kExperts;
    const auto best = std::max_element(row, row + kExperts) - row;
    ++first[static_cast<std::size_t>(best)];
    if (best != 0) continue;
    ++first_0;
    second_after_0 = std::max_element(row + 1, row + kExperts) - row;
    second_is_1 += second_after_0 == 1;
  }
  EXPECT_LT(std::abs(excess(first, expected)), 4);
  // Plackett-Luce: once the first is taken, the second follows what is left in proportion.
  const double p = popularity[1] / (sum - popularity[0]), n = static_cast<double>(first_0);
  EXPECT_NEAR(static_cast<double>(second_is_1), n * p, 4 * std::sqrt(n * p * (1 - p)));
}

// I5: a value depends on (seed, layer, token, expert) alone.
TEST(Noise, DoesNotDependOnHowItIsAskedFor) {
  const std::vector<float> flat(kExperts, -1.0F), all = odds(1, 2, 0, 5000, flat);
  for (std::int64_t t : {0, 1, 77, 4096}) {
    const std::vector<float> one = odds(1, 2, t, 1, flat), seed = odds(2, 2, t, 1, flat), layer = odds(1, 3, t, 1, flat);
    EXPECT_TRUE(std::equal(one.begin(), one.end(), all.begin() + t * kExperts));
    for (int e = 0; e < kExperts; ++e) EXPECT_NE(one[static_cast<std::size_t>(e)], seed[static_cast<std::size_t>(e)]);
    for (int e = 0; e < kExperts; ++e) EXPECT_NE(one[static_cast<std::size_t>(e)], layer[static_cast<std::size_t>(e)]);
  }
  const std::vector<float> few = odds(1, 2, 77, 1, std::vector<float>(3, -1.0F));  // and not on how many experts there are
  EXPECT_TRUE(std::equal(few.begin(), few.end(), all.begin() + 77 * kExperts));
}

// I5: the same bits on every machine and for every vector width; worked out apart from this program, in exact fractions.
TEST(Noise, HasItsKnownBits) {
  const std::vector<float> row = odds(42, 3, 12345, 1, std::vector<float>(4, -1.0F));
  EXPECT_EQ(row[0], -0x1.25efp+0F);
  EXPECT_EQ(row[1], -0x1.ea1062p-5F);
  EXPECT_EQ(row[2], -0x1.202f6ap-1F);
  EXPECT_EQ(row[3], -0x1.d7dce8p+0F);
}

}  // namespace
}  // namespace epsim
