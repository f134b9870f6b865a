#pragma once
#include "policies/routing.h"
#include "topology/topology.h"

namespace epsim {

/// Which expert each slot holds, for one layer. Slots are numbered rank by rank; ranks may hold different numbers of slots, none, or two replicas of one expert.
struct Placement {
  std::vector<std::uint16_t> expert_of_slot;       ///< [P], physical_to_logical in EPLB's words
  std::vector<std::int32_t> first_slot;            ///< [R+1]
  std::vector<std::vector<Slot>> slots_of_expert;  ///< [E], in replica order (logical_to_physical)

  int slots() const { return static_cast<int>(expert_of_slot.size()); }
  int ranks() const { return static_cast<int>(first_slot.size()) - 1; }
  Rank rank_of(Slot s) const;
  /// Slots in ascending order for each expert, where a policy has no replica order of its own.
  static Placement from_experts(std::vector<std::uint16_t> expert_of_slot, std::vector<std::int32_t> first_slot, int experts);
  /// Throws std::logic_error unless every expert has a slot, the tables agree and blocks cover all slots.
  void check(int experts) const;
};

/// What a placement policy sees.
struct Problem {
  int experts = 0;
  int ranks = 0;
  int nodes = 0;
  int expert_groups = 1;
  std::uint64_t seed = 0;
  std::vector<int> layers;                    ///< model layer index of each layer in `counts`
  std::vector<Matrix<std::int64_t>> counts;   ///< copies to compute (choices that capacity keeps) by layer: [source rank][expert] (a single row where sources are not known)
  const Topology* topology = nullptr;         ///< null where only sizes are known

  /// Tokens of each expert of a layer, over all sources: [E].
  std::vector<std::int64_t> loads(std::size_t layer) const;
};

/// A policy answers for all layers at once; it is a pure function of the problem.
struct PlacementPolicy {
  std::string_view summary;
  std::function<std::vector<Placement>(const Problem&)> place;
};

using PlacementCatalog = Catalog<PlacementPolicy, const Shape*>;
PlacementCatalog builtin_placements();

}  // namespace epsim
