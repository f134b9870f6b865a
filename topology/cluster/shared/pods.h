#pragma once
#include "topology/cluster/shared/leaf_spine.h"

namespace epsim {

/// What only a tree of three tiers has: pods of leaves and spines, joined by cores.
struct Pods {
  std::int64_t leaves = 1;  ///< of a pod
  std::int64_t cores = 1;   ///< a multiple of the spines of a pod
  Rational oversubscription;
};

/// Reads `leaves_per_pod`, `core_oversubscription` and `cores`; where the tree has two tiers (`used` is false) each of them is an error. There are `leaves` leaves to share out, in bundles of `bundle` that stay together (the
/// rails of the same nodes, which `leaves_per_pod` counts as one).
Pods read_pods(Params& p, std::int64_t leaves, std::int64_t bundle, const LeafSpine& net, bool used);

/// Adds pods and cores to leaves of `hosts` hosts each, the leaves of a pod behind one another: spine s of every pod has a link to cores s x each to (s + 1) x each - 1. Tiers "spine" and "core". A lone leaf gets nothing above it.
void add_pods(Fabric& f, std::span<const std::int32_t> leaves, std::span<const std::int64_t> hosts, const LeafSpine& net, const Pods& pods);

}  // namespace epsim
