#pragma once
#include "policies/replica.h"

namespace epsim::replicas {

/// Copies of each expert over all sources: [E].
std::vector<std::int64_t> copies_of_expert(const ReplicaRule::Layer& layer);
/// The rank that each slot is on: [P].
std::vector<Rank> ranks_of_slots(const Placement& placement);
/// Whether two ranks share a node; without a machine all do.
inline bool same_node(const Topology& topology, Rank a, Rank b) { return topology.ranks() == 0 || topology.node_of(a) == topology.node_of(b); }

/// `copies` in whole parts that are as the weights are, by largest remainder (ties: lowest index). Weights without a sum above 0 count as equal.
std::vector<std::int64_t> apportion(std::int64_t copies, std::span<const double> weights);

/// Whole copies that each slot is to take [P]; they sum to each expert's copies.
/// As the shares say: [P], summing to 1 over an expert's slots.
std::vector<std::int64_t> quotas_of_shares(const ReplicaRule::Layer& layer, std::span<const double> shares);
/// So that the rank with the most copies has as few as can be (policies/solve/min_max_split.h).
std::vector<std::int64_t> balanced_quotas(const ReplicaRule::Layer& layer);

/// The setting `split` of rules that follow quotas.
enum class SplitBy { placement, batch };
SplitBy read_split(Params& p);
/// The placement's shares where it has any and `by` does not say otherwise, else balanced.
std::vector<std::int64_t> quotas(const ReplicaRule::Layer& layer, SplitBy by);

/// Where a source's own copies go first, as far as quotas reach.
enum class Locality { none, rank, node };
/// Deals so that every slot takes its quota exactly: a source's copies of an expert take replicas in their order, each as many as is its part of the quotas.
/// Each rank (then each node) first serves its own copies, replica by replica; what is left of every source is spread over what is left of the quotas in proportion, by largest remainder, source by source.
/// O(R x c) for an expert of c replicas, experts in parallel.
ReplicaRule::Deal deal_by_quota(const ReplicaRule::Layer& layer, std::span<const std::int64_t> quotas, Locality locality);

/// Deals the n-th copy of an expert, counted over all sources in their order, to the replica in whose part of the quotas (499 n + 41) mod total lies (LPLB's hash). Slots take their quotas exactly,
/// unless 499 divides the expert's copies; each source's copies spread alike.
ReplicaRule::Deal deal_by_hash(const ReplicaRule::Layer& layer, std::span<const std::int64_t> quotas);

}  // namespace epsim::replicas
