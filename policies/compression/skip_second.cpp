#include <algorithm>

#include <fmt/format.h>

#include "policies/compression.h"

namespace epsim::parts_compression {
namespace {

/// The middle one, or the mean of the two in the middle; 0 of none.
double median(std::vector<float> values) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? double{values[half]} : (double{values[half - 1]} + double{values[half]}) / 2;
}

}  // namespace

/// All experts stay, but a token's second choice is not made where it weighs less than beta times the first (the dynamic skipping of NAEE, Lu et al., ACL 2024, arXiv 2402.14800); beta is the layer's median of that ratio
/// unless it is given, so that about half of the second choices are left.
Compression skip_second(Params& p, const Shape* shape) {
  Compression compression;
  compression.summary = "leaves out second choices that weigh less than beta times the first, by the layer's median (NAEE)";
  const bool given = p.has("beta");
  const double beta = p.number("beta", "share of the first choice's weight below which the second is left out", 0, 0, 1, "the layer's median of the two weights' ratio");
  if (!given) compression.sees = Compression::Sees::weights;
  if (!p.usable() || !shape) return compression;
  if (shape->top_k != 2) p.error("", fmt::format("it is defined for two choices of a token, the model's top_k is {}", shape->top_k));
  if (shape->source_has_choices && !shape->source_has_weights) p.error("", "the source brings no weights to compare");
  if (!p.usable()) return compression;
  compression.experts = shape->experts, compression.skips = true;
  compression.decide = [given, beta](const ExpertsSeen& seen) {
    ExpertMap map = unchanged(seen.experts);
    map.skip_below = given ? beta : median(seen.second_shares);
    return map;
  };
  return compression;
}

}  // namespace epsim::parts_compression
