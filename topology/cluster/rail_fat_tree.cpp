#include <fmt/format.h>

#include "topology/cluster/shared/pods.h"

namespace epsim::parts_cluster {

Topology rail_fat_tree(Params& p) {
  Topology listed;
  listed.summary = "A switch in each node, one NIC a rank; the i-th NICs of all nodes meet in the leaves of rail i, and spines join the leaves; with 3 tiers those of a pod of nodes, and cores the pods.";
  const std::int64_t nodes = p.integer("nodes", "number of nodes", {}, 1, kMaxRanks);
  const std::int64_t per_node = p.integer("ranks_per_node", "ranks of a node, which is the number of rails", {}, 1, kMaxRanks);
  const std::int64_t tiers = p.integer("tiers", "tiers of switches above the nodes", 2, 2, 3);
  const Device& device = read_device(p);
  const Port inner = read_scale_up(p, device);
  const LeafSpine net = read_leaf_spine(p, "nodes_per_leaf", nodes, device, device.nic_bandwidth.value, "the device's NIC rate");
  const std::int64_t leaves = (nodes + net.per_leaf - 1) / net.per_leaf;  // of a rail
  const Pods pods = read_pods(p, leaves * per_node, per_node, net, tiers == 3);
  const Paths paths = read_paths(p);
  if (p.usable()) check_ranks(p, "nodes", nodes * per_node);
  if (p.usable()) check_spine_links(p, leaves * per_node, net.spines);
  if (!p.usable()) return listed;

  Fabric f;
  for (Node n : ids<Node>(nodes)) f.add_node(n, per_node, inner);
  // Of a node's vertices its switch comes first.
  const auto rank_vertex = [&](std::int64_t node, std::int64_t rail) { return static_cast<std::int32_t>(node * (per_node + 1) + 1 + rail); };
  const std::vector<std::int64_t> nodes_of_leaf = hosts_of_leaves(nodes, net.per_leaf);
  std::vector<std::int32_t> made(static_cast<std::size_t>(leaves * per_node));  // [leaf of a rail][rail]: a pod's leaves are those of the same nodes
  std::vector<std::int64_t> sizes(made.size());
  for (std::int64_t rail = 0; rail < per_node; ++rail) {
    std::vector<HostPort> nics;
    for (std::int64_t n = 0; n < nodes; ++n) nics.push_back({rank_vertex(n, rail), rank_vertex(n, rail)});
    const std::vector<std::int32_t> of_rail = add_leaves(f, nics, net, fmt::format(" of rail {}", rail), "rail");
    for (std::size_t l = 0; l < of_rail.size(); ++l) {
      const std::size_t at = l * static_cast<std::size_t>(per_node) + static_cast<std::size_t>(rail);
      made[at] = of_rail[l], sizes[at] = nodes_of_leaf[l];
    }
  }
  if (tiers == 2)
    add_spines(f, made, sizes, net, "");
  else
    add_pods(f, made, sizes, net, pods);
  return f.build(device, paths, p.at(), listed.summary);
}

}  // namespace epsim::parts_cluster
