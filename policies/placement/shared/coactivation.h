#pragma once
#include "policies/placement.h"

namespace epsim {

/// How many tokens of a layer, over all batches of `tokens`, chose both experts: [E][E], symmetric, 0 on the diagonal.
Matrix<std::int64_t> coactivation(const Problem& problem, std::size_t layer);

}  // namespace epsim
