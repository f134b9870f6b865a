#pragma once
#include "policies/placement.h"

namespace epsim {

/// Which replica of its expert each kept copy goes to.
struct ReplicaRule {
  std::string_view summary;
  /// Deals the kept copies of an expert from one source rank, in token order, to `replicas`: writes an index into `replicas` for each copy.
  using Deal = std::function<void(Rank source, Expert expert, std::span<const Slot> replicas, std::span<std::uint16_t> out)>;
  /// Fixes the rule for one layer from global counts of kept copies [R][E]; the returned function is called from several threads.
  std::function<Deal(const Matrix<std::int64_t>& kept, const Placement& placement, const Topology& topology)> decide;
};

using ReplicaCatalog = Catalog<ReplicaRule, const Shape*>;
ReplicaCatalog builtin_replica_rules();

}  // namespace epsim
