#pragma once
#include <cstdint>
#include <vector>

#include "base/matrix.h"
#include "topology/topology.h"

namespace epsim {

struct Plan;

/// Of each home rank, how many of its tokens have a kept copy on a rank, on a node, or anywhere.
struct Reach {
  Matrix<std::int64_t> ranks;        ///< [R][R] by home rank and rank
  Matrix<std::int64_t> nodes;        ///< [R][N] by home rank and node; [R][0] without a machine
  std::vector<std::int64_t> tokens;  ///< [R] by home rank
};

/// Looks at every token of a plan, in parallel over home ranks.
Reach reach_of(const Plan& plan, const Topology& topology);

}  // namespace epsim
