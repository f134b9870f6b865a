#pragma once
#include "policies/placement.h"

namespace epsim {

/// The node of each rank: the machine's, or where only sizes are known, blocks of ranks as equal as they go, the larger first.
std::vector<int> node_of_ranks(const Problem& problem);

}  // namespace epsim
