#pragma once
#include <vector>

#include "policies/placement.h"

namespace epsim::testing {

/// A placement written rank by rank: the experts in each rank's slots.
inline Placement placement_of(const std::vector<std::vector<int>>& experts_of_rank, int experts) {
  std::vector<std::uint16_t> expert_of_slot;
  std::vector<std::int32_t> first_slot{0};
  for (const std::vector<int>& on_rank : experts_of_rank) {
    for (const int e : on_rank) expert_of_slot.push_back(static_cast<std::uint16_t>(e));
    first_slot.push_back(static_cast<std::int32_t>(expert_of_slot.size()));
  }
  return Placement::from_experts(std::move(expert_of_slot), std::move(first_slot), experts);
}

}  // namespace epsim::testing
