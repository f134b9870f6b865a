#pragma once
#include <memory>

#include "policies/pricing.h"
#include "policies/routing.h"
#include "topology/topology.h"

namespace epsim {

/// Which expert each slot holds, for one layer. Slots are numbered rank by rank; ranks may hold different numbers of slots, none, or two replicas of one expert.
struct Placement {
  std::vector<std::uint16_t> expert_of_slot;       ///< [P], physical_to_logical in EPLB's words
  std::vector<std::int32_t> first_slot;            ///< [R+1]
  std::vector<std::vector<Slot>> slots_of_expert;  ///< [E], in replica order (logical_to_physical)
  /// [P] the part of its expert's copies that each slot is planned to take, 0 or more, summing to 1 over an expert's slots. Empty where the policy leaves that to the replica rule; the rule `quota` follows it.
  std::vector<double> share;

  int slots() const { return static_cast<int>(expert_of_slot.size()); }
  int ranks() const { return static_cast<int>(first_slot.size()) - 1; }
  Rank rank_of(Slot s) const;
  /// Slots in ascending order for each expert, where a policy has no replica order of its own.
  static Placement from_experts(std::vector<std::uint16_t> expert_of_slot, std::vector<std::int32_t> first_slot, int experts);
  /// Throws std::logic_error unless every expert has a slot, the tables agree, blocks cover all slots and shares (if any) sum to 1.
  void check(int experts) const;
};

/// What a placement policy sees. Beyond the sums in `counts`, each is there only where it is known and the policy asked for it (`PlacementPolicy::sees`).
struct Problem {
  int experts = 0;
  int ranks = 0;
  int nodes = 0;
  int expert_groups = 1;
  std::uint64_t seed = 0;
  std::vector<int> layers;                    ///< model layer index of each layer in `counts`
  std::vector<Matrix<std::int64_t>> counts;   ///< copies to compute (choices that capacity keeps) by layer, over all batches: [source rank][expert] (a single row where sources are not known)
  std::vector<Matrix<std::int64_t>> batches;  ///< the same by layer, of single batches over all sources, oldest first: [batch][expert]. Empty where batches are not known: `counts` is one
  std::vector<std::vector<std::shared_ptr<const Routing>>> tokens;  ///< [layer][batch] what every token chose; empty where only counts are known
  std::vector<Placement> previous;            ///< [layer] the placement in force; empty where there is none
  std::vector<double> speed;                  ///< [R] how fast each rank computes, in parts of the fastest; empty: all alike
  const Topology* topology = nullptr;         ///< null where only sizes are known
  Pricing pricing;                            ///< bytes of rows and of experts; hidden is 0 where the model is not known
  std::function<double(std::int64_t rows)> expert_seconds;  ///< time of one expert over rows on a rank of speed 1; null where it is not known
  /// Simulated time of a layer whose tokens choose as `batch` says, under a placement, in seconds; null where nothing can be simulated. Costs milliseconds, not microseconds; may be called from several threads.
  std::function<double(std::size_t layer, const Routing& batch, const Placement&)> batch_seconds;

  /// Tokens of each expert of a layer, over all sources: [E].
  std::vector<std::int64_t> loads(std::size_t layer) const;
  /// `batches` of a layer, or its loads as one batch where batches are not known: [batch][E].
  Matrix<std::int64_t> loads_by_batch(std::size_t layer) const;
  /// Mean of `batch_seconds` over `tokens`' batches.
  double layer_seconds(std::size_t layer, const Placement& placement) const;
};

/// A policy answers for all layers at once; it is a pure function of the problem.
struct PlacementPolicy {
  std::string_view summary;
  /// What it cannot do without: `tokens` are refused where only counts are known (a load dump), `machine` where only sizes are.
  enum class Sees { counts, machine, tokens } sees = Sees::counts;
  bool or_less = false;  ///< uses what it can `see` where it is there, and does without where not
  std::vector<std::int32_t> room;  ///< [R+1] first place of each rank, where it may leave some empty; otherwise empty: it fills what it is given
  bool all_layers = false;  ///< places layers by their neighbours: of a layer alone it makes nothing
  std::function<std::vector<Placement>(const Problem&)> place;
};

using PlacementCatalog = Catalog<PlacementPolicy, const Shape*>;
PlacementCatalog builtin_placements();

}  // namespace epsim
