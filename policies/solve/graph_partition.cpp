#include "policies/solve/graph_partition.h"

#include <metis.h>

#include <algorithm>
#include <mutex>
#include <numeric>

#include "base/check.h"

namespace epsim {
namespace {

// METIS adds weights up in 32 bits.
constexpr double kLargestSum = 1 << 29;

double scale_of(double sum) { return sum > kLargestSum ? kLargestSum / sum : 1; }

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
  std::vector<idx_t> part(static_cast<std::size_t>(n));
  if (share.size() == 1) return std::vector<int>(part.begin(), part.end());
  if (static_cast<std::int64_t>(share.size()) >= n) {
    std::iota(part.begin(), part.end(), 0);
    return {part.begin(), part.end()};
  }

  std::vector<idx_t> first{0}, neighbour, edge_weight, vertex_weight;
  const double edge_scale = scale_of(std::accumulate(edges.cells.begin(), edges.cells.end(), 0.0));
  for (std::int64_t v = 0; v < n; ++v) {
    for (std::int64_t u = 0; u < n; ++u)
      if (const auto w = static_cast<idx_t>(static_cast<double>(edges(v, u)) * edge_scale); u != v && w > 0)
        neighbour.push_back(static_cast<idx_t>(u)), edge_weight.push_back(w);
    first.push_back(static_cast<idx_t>(neighbour.size()));
  }
  std::vector<double> scale;
  for (std::int64_t k = 0; k < weight.columns; ++k) {
    double sum = 0;
    for (std::int64_t v = 0; v < n; ++v) sum += static_cast<double>(weight(v, k));
    scale.push_back(scale_of(sum));
  }
  // A kind of weight that sums to 0 cannot be balanced, and vertices of none could all be heaped on one part: each counts a little.
  for (std::int64_t v = 0; v < n; ++v)
    for (std::int64_t k = 0; k < weight.columns; ++k)
      vertex_weight.push_back(1 + static_cast<idx_t>(static_cast<double>(weight(v, k)) * scale[static_cast<std::size_t>(k)]));

  idx_t vertices = static_cast<idx_t>(n), kinds = static_cast<idx_t>(weight.columns), parts = static_cast<idx_t>(share.size()), cut = 0;
  std::vector<real_t> target;
  for (const double s : share)
    for (idx_t k = 0; k < kinds; ++k) target.push_back(static_cast<real_t>(s));
  std::vector<real_t> tolerance(static_cast<std::size_t>(kinds), static_cast<real_t>(imbalance));
  idx_t options[METIS_NOPTIONS];
  METIS_SetDefaultOptions(options);
  options[METIS_OPTION_SEED] = 1;
  options[METIS_OPTION_NUMBERING] = 0;
  options[METIS_OPTION_NCUTS] = 4;

  static std::mutex one_at_a_time;
  std::unique_lock lock(one_at_a_time);
  const int status = METIS_PartGraphRecursive(&vertices, &kinds, first.data(), neighbour.data(), vertex_weight.data(), nullptr, edge_weight.data(), &parts,
                                              target.data(), tolerance.data(), options, &cut, part.data());
  lock.unlock();
  ensure(status == METIS_OK, "METIS partitions the graph");
  return Balance(edges, weight, share, imbalance, {part.begin(), part.end()}).improve();
}

}  // namespace epsim
