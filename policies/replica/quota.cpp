#include "policies/replica/shared/quotas.h"

namespace epsim::parts_replica {

/// Every slot takes a planned number of copies, and a source's copies of an expert take its replicas in order, each up to its part (UltraEP's quotas, 2026; GRACE+ likewise). The numbers follow the shares that the placement planned, or have the lowest
/// fullest rank that any split under this placement has. Ranks serve their own copies first, as UltraEP's do; `locality: node` goes on to the rest of the node, which UltraEP has no need for (its replicas stay in one NVLink domain).
ReplicaRule quota(Params& p, const Shape*) {
  ReplicaRule rule;
  rule.summary = "Every replica takes a planned number of copies: the placement's shares, or the split with the lowest fullest rank; sources use replicas of their own first.";
  const replicas::SplitBy by = replicas::read_split(p);
  const std::string local = p.choice("locality", "a source's copies go first to replicas on its own rank (`rank`), then on its node (`node`), or nowhere first (`none`)", {"none", "rank", "node"}, "rank");
  if (!p.usable()) return rule;
  const replicas::Locality locality = local == "none" ? replicas::Locality::none : local == "rank" ? replicas::Locality::rank : replicas::Locality::node;
  rule.decide = [=](const ReplicaRule::Layer& layer) { return replicas::deal_by_quota(layer, replicas::quotas(layer, by), locality); };
  return rule;
}

}  // namespace epsim::parts_replica
