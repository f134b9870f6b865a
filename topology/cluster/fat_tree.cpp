#include <fmt/format.h>

#include "topology/cluster/shared/pods.h"

namespace epsim::parts_cluster {

Topology fat_tree(Params& p) {
  Topology listed;
  listed.summary = "Leaves of hosts and spines above them; with 3 tiers pods of both and cores above. A host is a rank, or a node of ranks around a switch.";
  const std::int64_t nodes = p.integer("nodes", "number of hosts", {}, 1, kMaxRanks);
  const std::int64_t per_node = p.integer("ranks_per_node", "ranks of a host; several share its link through a switch", 1, 1, kMaxRanks);
  const std::int64_t tiers = p.integer("tiers", "tiers of switches above the hosts", 2, 2, 3);
  const Device& device = read_device(p);
  const Port inner = read_scale_up(p, device);
  const LeafSpine net = read_leaf_spine(p, "nodes_per_leaf", nodes, device, static_cast<double>(per_node) * device.nic_bandwidth.value, "ranks_per_node x the device's NIC rate");
  const std::int64_t leaves = (nodes + net.per_leaf - 1) / net.per_leaf;
  const Pods pods = read_pods(p, leaves, 1, net, tiers == 3);
  const Paths paths = read_paths(p);
  for (const char* key : {"bandwidth", "latency"})
    if (per_node == 1 && p.has(key)) p.error(key, fmt::format("`{}` is of links inside a node, which a node of one rank does not have", key));
  if (p.usable()) check_ranks(p, "nodes", nodes * per_node);
  if (p.usable()) check_spine_links(p, leaves, net.spines);
  if (!p.usable()) return listed;

  Fabric f;
  std::vector<HostPort> hosts;
  for (Node n : ids<Node>(nodes)) {
    const std::int32_t host = per_node == 1 ? f.add_rank(n) : f.add_node(n, per_node, inner);
    hosts.push_back({host, host});
  }
  const std::vector<std::int64_t> sizes = hosts_of_leaves(nodes, net.per_leaf);
  const std::vector<std::int32_t> made = add_leaves(f, hosts, net, "", "host");
  if (tiers == 2)
    add_spines(f, made, sizes, net, "");
  else
    add_pods(f, made, sizes, net, pods);
  return f.build(device, paths, p.at(), listed.summary);
}

}  // namespace epsim::parts_cluster
