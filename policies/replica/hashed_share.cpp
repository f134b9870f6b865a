#include "policies/replica/shared/quotas.h"

namespace epsim::parts_replica {

/// Every slot takes a planned number of copies, as with `quota`, but a hash of the copy's number says which: the n-th copy of an expert, over all sources, goes to the replica in whose part of the expert's copies (499 n + 41) mod total
/// lies (the hash of DeepSeek's LPLB). So every stretch of a source's copies spreads over the replicas, near or far.
ReplicaRule hashed_share(Params& p, const Shape*) {
  ReplicaRule rule;
  rule.summary = "Every replica takes a planned number of copies, as with `quota`, picked by LPLB's hash: (499 n + 41) mod total.";
  const replicas::SplitBy by = replicas::read_split(p);
  if (!p.usable()) return rule;
  rule.decide = [=](const ReplicaRule::Layer& layer) { return replicas::deal_by_hash(layer, replicas::quotas(layer, by)); };
  return rule;
}

}  // namespace epsim::parts_replica
