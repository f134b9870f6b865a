#pragma once
#include <span>

#include "policies/placement.h"

namespace epsim {

/// A replica that has no slot yet.
struct Replica {
  Expert expert;
  double load = 0;
};

/// One more replica always to the expert whose replicas carry the most (ties: lowest index), from one each: `replicas` in the order in which they are made. EPLB's rule.
std::vector<Replica> replicate_heaviest(std::span<const std::int64_t> loads, std::int64_t replicas);

/// Replicas, heaviest first (ties: in their order), each on the rank with a free slot that would be done first with it: the least (load + its load) / speed (ties: lowest rank).
/// Longest processing time on uniform machines (Gonzalez, Ibarra, Sahni 1977); with one speed it is EPLB's balanced packing, but for slots that ranks hold unequal numbers of.
/// Slots fill in that order; an expert's replicas keep theirs. `first_slot` [R+1] has as many slots as there are replicas, `speed` is [R] or empty.
Placement pack_heaviest_first(std::span<const Replica> replicas, std::vector<std::int32_t> first_slot, std::span<const double> speed, int experts);

}  // namespace epsim
