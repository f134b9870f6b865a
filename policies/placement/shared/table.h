#pragma once
#include "policies/placement.h"

namespace epsim {

/// Slots per rank: [R].
std::vector<int> rooms(std::span<const std::int32_t> first_slot);

/// A placement from the experts of each rank, in slot order: [R][slots of the rank].
Placement placement_of(const std::vector<std::vector<int>>& experts_of_rank, int experts);

/// A placement from a list of copies and the rank of each; a rank's slots hold its copies in the order of the list.
Placement placement_of(std::span<const int> expert_of_copy, std::span<const int> rank_of_copy, std::vector<std::int32_t> first_slot, int experts);

/// The placement in force on a layer, or, where there is none with these slots per rank, the one that engines start with: slot p holds expert p mod E.
Placement in_force(const Problem& problem, std::size_t layer, std::vector<std::int32_t> first_slot);

/// Load of each rank where every expert's load splits evenly over its slots: [R].
std::vector<double> even_rank_loads(const Placement& placement, std::span<const double> loads);

/// `fresh` with slots permuted inside ranks so that an expert which `old` has on the same rank keeps its slot; what is new fills the other slots in order
/// (vLLM's and vllm-ascend's slot preservation). Ranks whose number of slots changed stay as they are.
Placement keep_slots(const Placement& fresh, const Placement& old);

}  // namespace epsim
