#include <cmath>

#include "policies/compression/shared/keep.h"

namespace epsim::parts_compression {
namespace {

double distance(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum);
}

/// Joins the two clusters whose members are nearest in the mean over pairs, the first of equals, until `keep` are left. Clusters are numbered by their first members.
ExpertMap cluster(const Matrix<double>& points, int keep) {
  std::vector<std::vector<std::int64_t>> clusters;
  for (std::int64_t e = 0; e < points.rows; ++e) clusters.push_back({e});
  Matrix<double> apart(points.rows, points.rows);
  for (std::int64_t a = 0; a < points.rows; ++a)
    for (std::int64_t b = 0; b < points.rows; ++b) apart(a, b) = distance(points.row(a), points.row(b));
  const auto linkage = [&](const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b) {
    double sum = 0;
    for (const std::int64_t i : a)
      for (const std::int64_t j : b) sum += apart(i, j);
    return sum / static_cast<double>(a.size() * b.size());
  };
  while (static_cast<int>(clusters.size()) > keep) {
    std::size_t one = 0, other = 1;
    double least = linkage(clusters[0], clusters[1]);
    for (std::size_t a = 0; a < clusters.size(); ++a)
      for (std::size_t b = a + 1; b < clusters.size(); ++b)
        if (const double d = linkage(clusters[a], clusters[b]); d < least) least = d, one = a, other = b;
    clusters[one].insert(clusters[one].end(), clusters[other].begin(), clusters[other].end());
    clusters.erase(clusters.begin() + static_cast<std::ptrdiff_t>(other));
  }
  ExpertMap map{keep, std::vector<std::uint16_t>(static_cast<std::size_t>(points.rows)), 0};
  for (std::size_t c = 0; c < clusters.size(); ++c)
    for (const std::int64_t e : clusters[c]) map.to[static_cast<std::size_t>(e)] = static_cast<std::uint16_t>(c);
  return map;
}

}  // namespace

/// Merges clusters of experts whose mean outputs over all tokens are near each other, by hierarchical clustering with average linkage of Euclidean distances; weights are averaged by how often each is chosen
/// (HC-SMoE, Chen et al., ICML 2025, arXiv 2410.08589).
Compression output_clusters(Params& p, const Shape* shape) {
  Compression compression;
  compression.summary = "merges clusters of experts whose mean outputs are near each other (HC-SMoE)";
  compression.sees = Compression::Sees::outputs;
  const int keep = read_keep(p, shape);
  compression.align = p.flag("align", "bring hidden units into the most chosen expert's order before weights are averaged", false);
  if (!p.usable() || !shape) return compression;
  compression.experts = keep;
  compression.decide = [keep](const ExpertsSeen& seen) { return cluster(seen.mean_output, keep); };
  return compression;
}

}  // namespace epsim::parts_compression
