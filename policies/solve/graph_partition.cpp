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

}  // namespace

std::vector<int> partition_graph(const Matrix<std::int64_t>& edges, const Matrix<std::int64_t>& weight, std::span<const double> share, double imbalance) {
  const std::int64_t n = edges.rows;
  ensure(edges.columns == n && weight.rows == n && weight.columns > 0 && !share.empty() && imbalance > 1, "a graph to be partitioned has weights of all vertices");
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
      if (const auto w = static_cast<idx_t>(static_cast<double>(edges(v, u)) * edge_scale); u != v && w > 0) neighbour.push_back(static_cast<idx_t>(u)), edge_weight.push_back(w);
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
    for (std::int64_t k = 0; k < weight.columns; ++k) vertex_weight.push_back(1 + static_cast<idx_t>(static_cast<double>(weight(v, k)) * scale[static_cast<std::size_t>(k)]));

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
  const std::lock_guard lock(one_at_a_time);
  const int status = METIS_PartGraphRecursive(&vertices, &kinds, first.data(), neighbour.data(), vertex_weight.data(), nullptr, edge_weight.data(), &parts, target.data(), tolerance.data(), options, &cut,
                                              part.data());
  ensure(status == METIS_OK, "METIS partitions the graph");
  return {part.begin(), part.end()};
}

}  // namespace epsim
