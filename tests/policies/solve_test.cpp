// The doors to LAPACK and METIS, and the assignment that has a bottleneck.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/parallel.h"
#include "base/rng.h"
#include "policies/solve/bottleneck_assignment.h"
#include "policies/solve/eigenvectors.h"
#include "policies/solve/graph_partition.h"

namespace epsim {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;

TEST(TopEigenvectors, AreThoseOfTheLargestEigenvaluesWithAFixedSign) {
  // Eigenvalues 3, 1 and -5 of (1, 1, 0), (1, -1, 0) and (0, 0, 1).
  Matrix<double> m(3, 3);
  m.cells = {2, 1, 0, 1, 2, 0, 0, 0, -5};
  const Matrix<double> two = top_eigenvectors(m, 2);
  const double h = std::sqrt(0.5);
  const std::vector<double> expected = {h, h, h, -h, 0, 0};
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(two.cells[i], expected[i], 1e-12) << i;
  EXPECT_NEAR(top_eigenvectors(m, 3)(2, 2), 1, 1e-12);
}

TEST(TopEigenvectors, SolveTheEquation) {
  Rng rng(1, Stream::test);
  const int n = 40;
  Matrix<double> m(n, n);
  for (int i = 0; i < n; ++i)
    for (int j = 0; j <= i; ++j) m(i, j) = m(j, i) = rng.normal();
  const Matrix<double> v = top_eigenvectors(m, n);
  double last = 1e300, trace = 0;
  for (int c = 0; c < n; ++c) {
    double length = 0, value = 0;
    std::vector<double> image(n);
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < n; ++j) image[static_cast<std::size_t>(i)] += m(i, j) * v(j, c);
    for (int i = 0; i < n; ++i) length += v(i, c) * v(i, c), value += v(i, c) * image[static_cast<std::size_t>(i)];
    EXPECT_NEAR(length, 1, 1e-12);
    for (int i = 0; i < n; ++i) EXPECT_NEAR(image[static_cast<std::size_t>(i)], value * v(i, c), 1e-10);
    EXPECT_LE(value, last);
    last = value;
    trace += value;
  }
  double diagonal = 0;
  for (int i = 0; i < n; ++i) diagonal += m(i, i);
  EXPECT_NEAR(trace, diagonal, 1e-10);
}

/// Cliques of `size` vertices, vertex v in clique v mod cliques, with a weak edge between all others.
Matrix<std::int64_t> cliques(int count, int size, std::int64_t inside, std::int64_t between) {
  Matrix<std::int64_t> edges(count * size, count * size);
  for (int v = 0; v < count * size; ++v)
    for (int u = 0; u < count * size; ++u) edges(v, u) = u == v ? 0 : u % count == v % count ? inside : between;
  return edges;
}

Matrix<std::int64_t> weights(std::vector<std::int64_t> w) {
  Matrix<std::int64_t> m(static_cast<std::int64_t>(w.size()), 1);
  m.cells = std::move(w);
  return m;
}

TEST(PartitionGraph, FindsCliques) {
  for (const std::int64_t large : {std::int64_t{10}, std::int64_t{1} << 40}) {  // METIS's own weights have 32 bits
    const std::vector<double> share(4, 0.25);
    const std::vector<int> part = partition_graph(cliques(4, 6, large, large / 10), weights(std::vector<std::int64_t>(24, large)), share, 1.05);
    for (std::size_t v = 4; v < part.size(); ++v) EXPECT_EQ(part[v], part[v % 4]);
    EXPECT_THAT(std::vector<int>(part.begin(), part.begin() + 4), ::testing::UnorderedElementsAre(0, 1, 2, 3));
  }
}

TEST(PartitionGraph, GivesPartsTheirShares) {
  const std::vector<double> share = {0.75, 0.25};
  std::vector<std::int64_t> w(16, 100);
  const std::vector<int> part = partition_graph(cliques(1, 16, 1, 1), weights(w), share, 1.05);
  EXPECT_EQ(std::ranges::count(part, 0), 12);
}

TEST(PartitionGraph, BalancesEveryKindOfWeight) {
  // 4 vertices of 300 and 12 of 100: by weight alone 4 against 12 would be even; with a second kind, one a vertex, 2 and 6 on each side are.
  Matrix<std::int64_t> w(16, 2);
  for (int v = 0; v < 16; ++v) w(v, 0) = v < 4 ? 300 : 100, w(v, 1) = 100;
  const std::vector<double> share = {0.5, 0.5};
  const std::vector<int> part = partition_graph(cliques(1, 16, 1, 1), w, share, 1.05);
  EXPECT_EQ(std::ranges::count(part, 0), 8);
  EXPECT_EQ(std::count(part.begin(), part.begin() + 4, 0), 2);
}

TEST(PartitionGraph, StaysWithinTheTolerance) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    Rng rng(seed, Stream::test);
    const int n = 30;
    Matrix<std::int64_t> edges(n, n), w(n, 1);
    std::int64_t total = 0;
    for (int v = 0; v < n; ++v) {
      total += w(v, 0) = static_cast<std::int64_t>(rng.below(40));
      for (int u = 0; u < v; ++u) edges(u, v) = edges(v, u) = rng.below(4) ? 0 : static_cast<std::int64_t>(rng.below(1000));
    }
    const std::vector<double> share = {0.5, 0.25, 0.25};
    const std::vector<int> part = partition_graph(edges, w, share, 1.2);
    std::vector<std::int64_t> load(3);
    for (int v = 0; v < n; ++v) load[static_cast<std::size_t>(part[static_cast<std::size_t>(v)])] += w(v, 0);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_LE(static_cast<double>(load[i]), 1.2 * share[i] * static_cast<double>(total) + 1) << seed;
  }
}

TEST(PartitionGraph, GivesEachVertexAPartWherePartsAbound) {
  const std::vector<double> share(5, 0.2);
  EXPECT_THAT(partition_graph(cliques(1, 3, 1, 1), weights({1, 2, 3}), share, 1.05), ElementsAre(0, 1, 2));
  EXPECT_THAT(partition_graph(cliques(1, 3, 1, 1), weights({1, 2, 3}), std::vector<double>{1}, 1.05), ElementsAre(0, 0, 0));
}

// I5
TEST(PartitionGraph, DoesNotDependOnThreads) {
  Rng rng(3, Stream::test);
  Matrix<std::int64_t> edges(60, 60);
  for (int v = 0; v < 60; ++v)
    for (int u = 0; u < v; ++u) edges(v, u) = edges(u, v) = static_cast<std::int64_t>(rng.below(50));
  const std::vector<double> share(8, 0.125);
  const Matrix<std::int64_t> w = weights(std::vector<std::int64_t>(60, 1000));
  const std::vector<int> once = partition_graph(edges, w, share, 1.05);
  std::vector<std::vector<int>> again(16);
  parallel_for(16, [&](std::int64_t i) { again[static_cast<std::size_t>(i)] = partition_graph(edges, w, share, 1.05); });
  for (const std::vector<int>& part : again) EXPECT_EQ(part, once);
}

TEST(BottleneckAssignment, IsTheBestOfAllPermutations) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    Rng rng(seed, Stream::test);
    const auto n = static_cast<int>(1 + rng.below(5));
    Matrix<double> cost(n, n), then(n, n);
    for (double& c : cost.cells) c = static_cast<double>(rng.below(6));
    for (double& c : then.cells) c = static_cast<double>(rng.below(20)) - 10;
    std::vector<int> order(static_cast<std::size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    const auto value = [&](const std::vector<int>& column) {
      double most = -1e300, sum = 0;
      for (int r = 0; r < n; ++r) most = std::max(most, cost(r, column[static_cast<std::size_t>(r)])), sum += then(r, column[static_cast<std::size_t>(r)]);
      return std::pair(most, sum);
    };
    std::pair<double, double> best = value(order);
    while (std::ranges::next_permutation(order).found) best = std::min(best, value(order));
    EXPECT_EQ(value(bottleneck_assignment(cost, then)), best) << seed;
  }
}

}  // namespace
}  // namespace epsim
