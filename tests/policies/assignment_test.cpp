#include "policies/solve/assignment.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <numeric>

#include "base/rng.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

Matrix<double> costs(const std::vector<std::vector<double>>& rows) {
  Matrix<double> m(static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(rows[0].size()));
  for (std::size_t r = 0; r < rows.size(); ++r) std::ranges::copy(rows[r], m.row(static_cast<std::int64_t>(r)).begin());
  return m;
}

double sum(const Matrix<double>& cost, const std::vector<int>& columns) {
  double s = 0;
  for (std::size_t r = 0; r < columns.size(); ++r) s += cost(static_cast<std::int64_t>(r), columns[r]);
  return s;
}

TEST(Assignment, TakesTheLeastSum) {
  // The cheapest cell (0, 0) is not in the best answer: 2 + 2 + 2 is less than 1 + 9 + 2 and all others.
  EXPECT_THAT(least_cost_assignment(costs({{1, 2, 9}, {2, 9, 9}, {9, 9, 2}})), ElementsAre(1, 0, 2));
  EXPECT_THAT(least_cost_assignment(costs({{-5}})), ElementsAre(0));
  EXPECT_TRUE(least_cost_assignment(Matrix<double>(0, 3)).empty());
}

TEST(Assignment, LeavesColumnsOver) { EXPECT_THAT(least_cost_assignment(costs({{7, 3, 1, 4}, {6, 5, 0, 9}})), ElementsAre(1, 2)); }

TEST(Assignment, KeepsTheOrderAmongTies) { EXPECT_THAT(least_cost_assignment(Matrix<double>(4, 5)), ElementsAre(0, 1, 2, 3)); }

TEST(Assignment, RefusesMoreRowsThanColumns) { EXPECT_THROW(least_cost_assignment(Matrix<double>(3, 2)), std::logic_error); }

TEST(Assignment, EqualsAllPermutationsTried) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    Rng rng(seed, Stream::test);
    const auto rows = static_cast<std::int64_t>(1 + rng.below(6)), columns = rows + static_cast<std::int64_t>(rng.below(2));
    Matrix<double> cost(rows, columns);
    for (double& c : cost.cells) c = static_cast<double>(rng.below(12)) - 4;
    const std::vector<int> found = least_cost_assignment(cost);
    std::vector<int> sorted = found, order(static_cast<std::size_t>(columns));
    std::ranges::sort(sorted);
    ASSERT_TRUE(std::ranges::adjacent_find(sorted) == sorted.end()) << "columns are different";
    ASSERT_TRUE(sorted.front() >= 0 && sorted.back() < columns);
    std::iota(order.begin(), order.end(), 0);
    double least = 1e9;
    do least = std::min(least, sum(cost, {order.begin(), order.begin() + rows}));
    while (std::ranges::next_permutation(order).found);
    EXPECT_EQ(sum(cost, found), least) << "seed " << seed;
  }
}

}  // namespace
}  // namespace epsim
