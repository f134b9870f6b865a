#pragma once
#include <span>
#include <vector>

#include "policies/compression.h"

namespace epsim {

/// Reads `keep`, how many experts of each layer are left: from top_k, so that a token still has that many to choose from, up to all.
int read_keep(Params& params, const Shape* shape);

/// The places of the `keep` largest values, ascending; of equals the first are kept.
std::vector<int> largest(std::span<const double> values, int keep);
/// The same of counts.
std::vector<int> largest(std::span<const std::int64_t> values, int keep);

/// Keeps these experts, which are ascending, in their order and prunes the others.
ExpertMap keep_only(int experts, std::span<const int> kept);

}  // namespace epsim
