#include "policies/solve/graph_partition.h"

#include <metis.h>

#include <algorithm>
#include <mutex>
#include <numeric>

#include "base/check.h"

namespace epsim {
namespace {

/// Weights in 32 bits, in which METIS adds them up.
class Scale {
 public:
  explicit Scale(double sum) : factor_(std::min(1.0, kLargestSum / std::max(sum, 1.0))) {}
  idx_t operator()(std::int64_t weight) const { return static_cast<idx_t>(static_cast<double>(weight) * factor_); }

 private:
  static constexpr double kLargestSum = 1 << 29;
  double factor_;
};

/// Which of the vertices go to the second of two sides, whose share of the weight is `second`.
std::vector<bool> bisect(std::span<const int> vertices, const Matrix<std::int64_t>& edges, const Matrix<std::int64_t>& weight, double second,
                         double imbalance) {
  double edge_sum = 0;
  std::vector<double> sum(static_cast<std::size_t>(weight.columns));
  for (const int v : vertices) {
    for (const int u : vertices) edge_sum += static_cast<double>(edges(v, u));
    for (std::size_t k = 0; k < sum.size(); ++k) sum[k] += static_cast<double>(weight(v, static_cast<std::int64_t>(k)));
  }
  std::vector<idx_t> first{0}, neighbour, edge_weight, vertex_weight;
  const Scale scale(edge_sum);
  for (const int v : vertices) {
    for (std::size_t i = 0; i < vertices.size(); ++i)
      if (const idx_t w = scale(edges(v, vertices[i])); vertices[i] != v && w > 0) neighbour.push_back(static_cast<idx_t>(i)), edge_weight.push_back(w);
    first.push_back(static_cast<idx_t>(neighbour.size()));
    // A kind of weight that sums to 0 cannot be balanced, and vertices of none could all be heaped on one side: each counts a little.
    for (std::size_t k = 0; k < sum.size(); ++k) vertex_weight.push_back(1 + Scale(sum[k])(weight(v, static_cast<std::int64_t>(k))));
  }

  idx_t n = static_cast<idx_t>(vertices.size()), kinds = static_cast<idx_t>(weight.columns), parts = 2, cut = 0;
  std::vector<real_t> target(sum.size(), static_cast<real_t>(1 - second)), tolerance(sum.size(), static_cast<real_t>(imbalance));
  target.resize(2 * sum.size(), static_cast<real_t>(second));
  idx_t options[METIS_NOPTIONS];
  METIS_SetDefaultOptions(options);
  options[METIS_OPTION_SEED] = 1;
  options[METIS_OPTION_NUMBERING] = 0;
  std::vector<idx_t> side(vertices.size());
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  const int status = METIS_PartGraphRecursive(&n, &kinds, first.data(), neighbour.data(), vertex_weight.data(), nullptr, edge_weight.data(), &parts,
                                              target.data(), tolerance.data(), options, &cut, side.data());
  ensure(status == METIS_OK, "METIS bisects the graph");
  return {side.begin(), side.end()};
}

/// Bisects until each part has its own vertices. METIS itself goes on where a side has fewer vertices than parts, and complains on the standard output.
void split(std::span<const int> vertices, const Matrix<std::int64_t>& edges, const Matrix<std::int64_t>& weight, std::span<const double> share,
           double imbalance, int first_part, std::vector<int>& part) {
  if (share.size() == 1 || vertices.size() <= share.size()) {
    for (std::size_t i = 0; i < vertices.size(); ++i) part[static_cast<std::size_t>(vertices[i])] = first_part + (share.size() == 1 ? 0 : static_cast<int>(i));
    return;
  }
  const std::span<const double> left = share.first(share.size() / 2), right = share.subspan(left.size());
  const double right_share = std::accumulate(right.begin(), right.end(), 0.0) / std::accumulate(share.begin(), share.end(), 0.0);
  const std::vector<bool> goes_right = bisect(vertices, edges, weight, right_share, imbalance);
  std::vector<int> lefts, rights;
  for (std::size_t i = 0; i < vertices.size(); ++i) (goes_right[i] ? rights : lefts).push_back(vertices[i]);
  split(lefts, edges, weight, left, imbalance, first_part, part);
  split(rights, edges, weight, right, imbalance, first_part + static_cast<int>(left.size()), part);
}

/// Moves single vertices, each time the one that lowers the weight above the parts' limits most and then raises the cut least: METIS may leave small graphs far
/// out of balance.
class Balance {
 public:
  Balance(const Matrix<std::int64_t>& edges, const Matrix<std::int64_t>& weight, std::span<const double> share, double imbalance, std::vector<int> part)
      : edges_(edges),
        part_(std::move(part)),
        weight_(weight.rows, weight.columns),
        load_(static_cast<std::int64_t>(share.size()), weight.columns),
        limit_(load_.rows, load_.columns),
        to_(edges.rows, load_.rows) {
    for (std::int64_t k = 0; k < weight.columns; ++k) {
      double sum = 0;
      for (std::int64_t v = 0; v < weight.rows; ++v) sum += static_cast<double>(weight(v, k));
      for (std::int64_t v = 0; v < weight.rows && sum > 0; ++v) weight_(v, k) = static_cast<double>(weight(v, k)) / sum;
      for (std::int64_t p = 0; p < load_.rows; ++p) limit_(p, k) = share[static_cast<std::size_t>(p)] * imbalance;
    }
    for (std::int64_t v = 0; v < weight.rows; ++v) {
      add(v, of(v), 1);
      for (std::int64_t u = 0; u < weight.rows; ++u)
        if (u != v) to_(v, of(u)) += edges(v, u);
    }
  }

  std::vector<int> improve() {
    while (move_one()) continue;
    return std::move(part_);
  }

 private:
  int of(std::int64_t v) const { return part_[static_cast<std::size_t>(v)]; }
  void add(std::int64_t v, std::int64_t p, double sign) {
    for (std::int64_t k = 0; k < weight_.columns; ++k) load_(p, k) += sign * weight_(v, k);
  }
  /// What the excess of a part changes by where a vertex joins (+1) or leaves (-1).
  double change(std::int64_t v, std::int64_t p, double sign) const {
    double sum = 0;
    for (std::int64_t k = 0; k < weight_.columns; ++k)
      sum += std::max(0.0, load_(p, k) + sign * weight_(v, k) - limit_(p, k)) - std::max(0.0, load_(p, k) - limit_(p, k));
    return sum;
  }
  bool move_one() {
    constexpr double kLess = 1e-9;  // of all weight: a change that rounding could make is none
    double best = -kLess;
    std::int64_t vertex = -1, target = -1, gain = 0;
    for (std::int64_t v = 0; v < weight_.rows; ++v) {
      const double leaving = change(v, of(v), -1);
      if (leaving > -kLess) continue;
      for (std::int64_t p = 0; p < load_.rows; ++p) {
        if (p == of(v)) continue;
        const double less = leaving + change(v, p, 1);
        const std::int64_t closer = to_(v, p) - to_(v, of(v));
        if (less < best - kLess || (vertex >= 0 && less < best + kLess && closer > gain)) best = less, vertex = v, target = p, gain = closer;
      }
    }
    if (vertex < 0) return false;
    const int from = of(vertex);
    add(vertex, from, -1), add(vertex, target, 1);
    for (std::int64_t u = 0; u < edges_.rows; ++u)
      if (u != vertex) to_(u, from) -= edges_(u, vertex), to_(u, target) += edges_(u, vertex);
    part_[static_cast<std::size_t>(vertex)] = static_cast<int>(target);
    return true;
  }

  const Matrix<std::int64_t>& edges_;
  std::vector<int> part_;
  Matrix<double> weight_, load_, limit_;  // in parts of each kind's sum
  Matrix<std::int64_t> to_;               // [n][parts] edge weight
};

}  // namespace

std::vector<int> partition_graph(const Matrix<std::int64_t>& edges, const Matrix<std::int64_t>& weight, std::span<const double> share, double imbalance) {
  const std::int64_t n = edges.rows;
  ensure(edges.columns == n && weight.rows == n && weight.columns > 0 && !share.empty() && imbalance > 1,
         "a graph to be partitioned has weights of all vertices");
  std::vector<int> vertices(static_cast<std::size_t>(n)), part(vertices.size());
  std::iota(vertices.begin(), vertices.end(), 0);
  split(vertices, edges, weight, share, imbalance, 0, part);
  return static_cast<std::int64_t>(share.size()) >= n ? part : Balance(edges, weight, share, imbalance, std::move(part)).improve();
}

}  // namespace epsim
