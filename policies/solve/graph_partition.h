#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/matrix.h"

namespace epsim {

/// Splits vertices into parts so that little edge weight lies between parts and each part has its share of the vertices' weight: [n] the part of each vertex.
/// `edges` [n][n] is symmetric, 0 or more; `weight` [n][kinds] has weights of one or more kinds, each of which is to be balanced, 0 or more; `share` [parts]
/// sums to 1; a part may have up to `imbalance` (above 1) times its share, as far as moves of single vertices bring it there. Recursive bisection by METIS
/// (Karypis and Kumar 1998) with a fixed seed, and then such moves; calls from several threads wait for each other in METIS, which draws from one random
/// stream. Parts may be empty; where there are as many parts as vertices, or more, vertex v is part v.
std::vector<int> partition_graph(const Matrix<std::int64_t>& edges, const Matrix<std::int64_t>& weight, std::span<const double> share, double imbalance);

}  // namespace epsim
