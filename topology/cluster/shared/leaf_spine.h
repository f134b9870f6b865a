#pragma once
#include <span>
#include <string>
#include <vector>

#include "topology/cluster/shared/fabric.h"

namespace epsim {

/// The two ends of a host's full-duplex port: the vertex that sends and the vertex that receives, often one.
struct HostPort {
  std::int32_t sends = 0, receives = 0;
};

/// How leaves are joined: the settings of a leaf-spine network that several shapes read in the same words.
struct LeafSpine {
  std::int64_t per_leaf = 1;  ///< hosts of a leaf
  std::int64_t spines = 1;
  Rational oversubscription;
  Port host;  ///< between a host and its leaf
  Time switch_latency;
};

/// Reads `nodes_per_leaf` or the like (`per_leaf_key`), `oversubscription`, `spines`, `nic_bandwidth`, `nic_latency` and `switch_latency`. `rate` is a host's; `hosts` is how many there are at most.
LeafSpine read_leaf_spine(Params& p, std::string_view per_leaf_key, std::int64_t hosts, const Device& device, Bandwidth rate, std::string_view rate_text);

/// Adds leaves for hosts, `per_leaf` to each in their order, with links of the tier "host"; gives the leaves. `of` ends their names, such as " of rail 2"; a lone leaf has no number then.
std::vector<std::int32_t> add_leaves(Fabric& f, std::span<const HostPort> hosts, const LeafSpine& net, std::string_view of, std::string_view tier);
/// Adds spines with a link to every leaf and the tier "spine", where there are several leaves. A leaf of `hosts` hosts gets hosts x rate / oversubscription up in all.
void add_spines(Fabric& f, std::span<const std::int32_t> leaves, std::span<const std::int64_t> hosts, const LeafSpine& net, std::string_view of);
/// How many of `hosts` the leaves have.
std::vector<std::int64_t> hosts_of_leaves(std::int64_t hosts, std::int64_t per_leaf);
/// Reports more than a million leaf-spine links, at `spines`.
void check_spine_links(Params& p, std::int64_t leaves, std::int64_t spines);

}  // namespace epsim
