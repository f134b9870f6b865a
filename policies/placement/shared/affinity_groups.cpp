#include "policies/placement/shared/affinity_groups.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "policies/solve/eigenvectors.h"

namespace epsim {
namespace {

constexpr double kNear = 1e-9;  // distances that differ by less tie: LAPACK's last bits decide nothing

double distance(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

/// A point for each expert: its row of the top eigenvectors of the normalised affinity, at length 1 (0 where nothing was chosen with it).
Matrix<double> embed(const Matrix<std::int64_t>& affinity, std::span<const double> degree, int dimensions) {
  Matrix<double> normal(affinity.rows, affinity.rows);
  for (std::int64_t a = 0; a < affinity.rows; ++a)
    for (std::int64_t b = 0; b < affinity.rows; ++b)
      if (a != b && affinity(a, b) > 0)
        normal(a, b) = static_cast<double>(affinity(a, b)) / std::sqrt(degree[static_cast<std::size_t>(a)] * degree[static_cast<std::size_t>(b)]);
  Matrix<double> points = top_eigenvectors(std::move(normal), dimensions);
  for (std::int64_t e = 0; e < points.rows; ++e) {
    const std::span<double> row = points.row(e);
    const double length = std::sqrt(std::inner_product(row.begin(), row.end(), row.begin(), 0.0));
    for (double& x : row) x = degree[static_cast<std::size_t>(e)] > 0 && length > kNear ? x / length : 0;
  }
  return points;
}

/// Farthest-first: the first centre is the expert with most affinity, each next the point farthest from all centres.
Matrix<double> first_centres(const Matrix<double>& points, std::span<const double> degree, int groups) {
  Matrix<double> centres(groups, points.columns);
  std::vector<double> away(degree.size(), 1e300);
  auto next = std::ranges::max_element(degree) - degree.begin();
  for (int g = 0; g < groups; ++g) {
    std::ranges::copy(points.row(next), centres.row(g).begin());
    away[static_cast<std::size_t>(next)] = -1;  // taken
    for (std::int64_t e = 0; e < points.rows; ++e) {
      double& d = away[static_cast<std::size_t>(e)];
      d = std::min(d, distance(points.row(e), centres.row(g)));
    }
    next = 0;
    for (std::int64_t e = 1; e < points.rows; ++e)
      if (away[static_cast<std::size_t>(e)] > away[static_cast<std::size_t>(next)] + kNear) next = e;
  }
  return centres;
}

std::vector<int> cluster(const Matrix<double>& points, Matrix<double> centres) {
  std::vector<int> group(static_cast<std::size_t>(points.rows), -1);
  std::vector<double> away(group.size());
  for (int round = 0; round < 32; ++round) {
    std::vector<int> size(static_cast<std::size_t>(centres.rows)), next(group.size());
    for (std::size_t e = 0; e < group.size(); ++e) {
      away[e] = 1e300;
      for (int g = 0; g < centres.rows; ++g)
        if (const double d = distance(points.row(static_cast<std::int64_t>(e)), centres.row(g)); d < away[e] - kNear) away[e] = d, next[e] = g;
      ++size[static_cast<std::size_t>(next[e])];
    }
    for (std::size_t g = 0; g < size.size(); ++g) {
      if (size[g] > 0) continue;
      std::size_t farthest = group.size();
      for (std::size_t e = 0; e < group.size(); ++e)
        if (size[static_cast<std::size_t>(next[e])] > 1 && (farthest == group.size() || away[e] > away[farthest] + kNear)) farthest = e;
      --size[static_cast<std::size_t>(next[farthest])];
      next[farthest] = static_cast<int>(g), away[farthest] = 0, size[g] = 1;
    }
    if (next == group) break;
    group = std::move(next);
    std::ranges::fill(centres.cells, 0.0);
    for (std::size_t e = 0; e < group.size(); ++e)
      for (std::int64_t i = 0; i < points.columns; ++i)
        centres(group[e], i) += points(static_cast<std::int64_t>(e), i) / size[static_cast<std::size_t>(group[e])];
  }
  return group;
}

/// Groups with the affinity of every expert to every group.
class Groups {
 public:
  Groups(const Matrix<std::int64_t>& affinity, std::vector<int> group, int groups)
      : affinity_(affinity), group_(std::move(group)), to_(affinity.rows, groups), size_(static_cast<std::size_t>(groups)) {
    for (std::int64_t e = 0; e < affinity.rows; ++e) {
      ++size_[static_cast<std::size_t>(of(e))];
      for (std::int64_t f = 0; f < affinity.rows; ++f)
        if (f != e) to_(e, of(f)) += affinity(e, f);
    }
  }

  /// Moves experts, those that lose least affinity first, out of groups above `most` and into groups below `least`.
  void fit(int least, int most) {
    while (move_best([&](int from, int to) { return size(from) > most && size(to) < most; })) continue;
    while (move_best([&](int from, int to) { return size(from) > least && size(to) < least; })) continue;
  }
  void swap_pairs() {
    bool swapped = true;
    for (int round = 0; round < 8 && swapped; ++round) {
      swapped = false;
      for (std::int64_t a = 0; a < affinity_.rows; ++a)
        for (std::int64_t b = a + 1; b < affinity_.rows; ++b) {
          const int ga = of(a), gb = of(b);
          if (ga == gb || to_(a, gb) + to_(b, ga) - to_(a, ga) - to_(b, gb) - 2 * affinity_(a, b) <= 0) continue;
          move(a, gb), move(b, ga);
          swapped = true;
        }
    }
  }
  std::vector<int> take() { return std::move(group_); }

 private:
  int of(std::int64_t e) const { return group_[static_cast<std::size_t>(e)]; }
  int size(int g) const { return size_[static_cast<std::size_t>(g)]; }
  void move(std::int64_t e, int to) {
    const int from = of(e);
    for (std::int64_t f = 0; f < affinity_.rows; ++f)
      if (f != e) to_(f, from) -= affinity_(f, e), to_(f, to) += affinity_(f, e);
    --size_[static_cast<std::size_t>(from)], ++size_[static_cast<std::size_t>(to)];
    group_[static_cast<std::size_t>(e)] = to;
  }
  template <class Allowed>
  bool move_best(Allowed allowed) {
    std::int64_t expert = -1, best = 0;
    int target = -1;
    for (std::int64_t e = 0; e < affinity_.rows; ++e)
      for (int g = 0; g < to_.columns; ++g)
        if (const std::int64_t gain = to_(e, g) - to_(e, of(e)); allowed(of(e), g) && (expert < 0 || gain > best)) expert = e, best = gain, target = g;
    if (expert >= 0) move(expert, target);
    return expert >= 0;
  }

  const Matrix<std::int64_t>& affinity_;
  std::vector<int> group_;
  Matrix<std::int64_t> to_;  // [E][groups]
  std::vector<int> size_;
};

}  // namespace

std::vector<int> group_by_affinity(const Matrix<std::int64_t>& affinity, int groups, int least, int most) {
  std::vector<int> group(static_cast<std::size_t>(affinity.rows));
  if (groups >= affinity.rows) {
    std::iota(group.begin(), group.end(), 0);
    return group;
  }
  std::vector<double> degree;
  for (std::int64_t e = 0; e < affinity.rows; ++e) {
    const std::span<const std::int64_t> row = affinity.row(e);
    degree.push_back(std::accumulate(row.begin(), row.end(), 0.0) - static_cast<double>(affinity(e, e)));
  }
  const Matrix<double> points = embed(affinity, degree, groups);
  Groups fitted(affinity, cluster(points, first_centres(points, degree, groups)), groups);
  fitted.fit(least, most);
  fitted.swap_pairs();
  return fitted.take();
}

}  // namespace epsim
