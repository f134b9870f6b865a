#include <cmath>

#include <gtest/gtest.h>

#include "analysis/measure.h"

namespace epsim {
namespace {

TEST(LoadMetrics, EachFollowsItsFormula) {
  // max 8, min 0, mean 4, variance (16 + 0 + 0 + 16) / 4 = 8.
  const LoadMetrics m = load_metrics({8, 4, 4, 0}, 32);
  EXPECT_DOUBLE_EQ(m.max_over_mean, 2);
  EXPECT_DOUBLE_EQ(m.max_minus_mean_over_mean, 1);
  EXPECT_DOUBLE_EQ(m.mean_over_max, 0.5);
  EXPECT_DOUBLE_EQ(m.max_plus_1_over_min_plus_1, 9);
  EXPECT_DOUBLE_EQ(m.std_over_mean, std::sqrt(8.0) / 4);
  EXPECT_DOUBLE_EQ(m.max_minus_min_over_tokens, 0.25);
}

TEST(LoadMetrics, EqualOrNoLoadsAreIdeal) {
  for (const auto& loads : {std::vector<std::int64_t>{5, 5, 5}, std::vector<std::int64_t>{0, 0}, std::vector<std::int64_t>{}}) {
    const LoadMetrics m = load_metrics(loads, 10);
    EXPECT_EQ(m.max_over_mean, 1);
    EXPECT_EQ(m.max_minus_mean_over_mean, 0);
    EXPECT_EQ(m.mean_over_max, 1);
    EXPECT_EQ(m.max_plus_1_over_min_plus_1, 1);
    EXPECT_EQ(m.std_over_mean, 0);
    EXPECT_EQ(m.max_minus_min_over_tokens, 0);
  }
}

TEST(LoadMetrics, NoTokensDivideByNothing) { EXPECT_EQ(load_metrics({3, 1}, 0).max_minus_min_over_tokens, 0); }

}  // namespace
}  // namespace epsim
