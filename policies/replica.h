#pragma once
#include "policies/placement.h"

namespace epsim {

/// Which replica of its expert each kept copy goes to.
struct ReplicaRule {
  std::string_view summary;
  /// The rule reads `Copies::choice`.
  bool by_choice = false;
  /// The n-th copy of an expert from rank s goes to replica (s + n) mod c of its c, wherever these are: bounds for all placements rest on it (policies/turns_bound.h).
  bool in_turn = false;

  /// What a rule knows of a layer before it deals: global counts.
  struct Layer {
    int index = 0;  ///< in the model
    int top_k = 0;
    const Matrix<std::int64_t>& kept;  ///< [R][E] kept copies by home rank and expert
    const Placement& placement;
    const Topology& topology;
    std::uint64_t seed = 0;        ///< of the experiment, for rules that draw
    std::int64_t first_token = 0;  ///< number of the batch's first token among those of all batches
  };
  /// The kept copies of an expert with two or more replicas from one source rank, in token order.
  struct Copies {
    Rank source;
    Expert expert;
    std::span<const Slot> replicas;
    std::span<const std::uint32_t> choice;  ///< of each copy: its token's place in the source's batch x top_k + its place among the token's choices. Empty unless `by_choice`
  };
  /// Writes an index into `replicas` for each copy.
  using Deal = std::function<void(const Copies& copies, std::span<std::uint16_t> out)>;
  /// Fixes the rule for one layer; the returned function is called from several threads.
  std::function<Deal(const Layer& layer)> decide;
};

using ReplicaCatalog = Catalog<ReplicaRule, const Shape*>;
ReplicaCatalog builtin_replica_rules();

}  // namespace epsim
