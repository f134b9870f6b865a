#include <fmt/format.h>

#include "topology/cluster/shared/leaf_spine.h"

namespace epsim::parts_cluster {

Topology multi_rail(Params& p) {
  Topology listed;
  listed.summary =
      "Nodes with several NICs, each on a network of its own (a rail). A message crosses its own node's switch to the NIC of the rail that its destination is on (NCCL's PXN), so rails are never joined.";
  const std::int64_t nodes = p.integer("nodes", "number of nodes", {}, 1, kMaxRanks);
  const std::int64_t per_node = p.integer("ranks_per_node", "ranks of a node", {}, 1, kMaxRanks);
  const std::int64_t nics = p.integer("nics", "NICs of a node, which is the number of rails; rank i of a node is on rail i x nics / ranks_per_node", per_node, 1, kMaxRanks, "ranks_per_node");
  const Device& device = read_device(p);
  const Port inner = read_scale_up(p, device);
  const LeafSpine net = read_leaf_spine(p, "nodes_per_leaf", nodes, device, device.nic_bandwidth.value, "the device's NIC rate");
  const Port bus = {p.bandwidth("bus_bandwidth", "rate between a NIC and a rank or the node's switch, one direction", net.host.bandwidth, "nic_bandwidth"),
                    p.time("bus_latency", "time of one hop between a NIC and a rank or the node's switch", Time{}, "0s: nic_latency is taken to hold it")};
  const Paths paths = read_paths(p);
  if (p.usable() && per_node % nics != 0) p.error("nics", fmt::format("{} ranks share no whole number of times among {} NICs", per_node, nics));
  if (p.usable()) check_ranks(p, "nodes", nodes * per_node);
  if (p.usable()) check_spine_links(p, (nodes + net.per_leaf - 1) / net.per_leaf * nics, net.spines);
  if (!p.usable()) return listed;

  Fabric f;
  std::vector<std::vector<HostPort>> rails(static_cast<std::size_t>(nics));
  for (Node n : ids<Node>(nodes)) {
    const std::int32_t hub = f.add_node(n, per_node, inner);
    for (std::int64_t nic = 0; nic < nics; ++nic) {
      // A NIC is two vertices, so that ranks which share one do not meet in it.
      const std::int32_t out = f.add_switch(fmt::format("nic {} of node {}, out", nic, n.value)), in = f.add_switch(fmt::format("nic {} of node {}, in", nic, n.value));
      const std::int64_t share = per_node / nics;
      // Of a node's vertices its switch comes first.
      for (std::int64_t i = nic * share; i < (nic + 1) * share; ++i) {
        const auto rank = static_cast<std::int32_t>(hub + 1 + i);
        f.add_link(rank, out, "bus", bus);
        f.add_link(in, rank, "bus", bus);
      }
      f.add_link(hub, out, "bus", bus);
      // Arrivals for another rail's ranks cross the node's switch only where their own NIC is gone.
      f.add_link(in, hub, "bus", bus);
      f.links.back().cost = 2;
      rails[static_cast<std::size_t>(nic)].push_back({out, in});
    }
  }
  const std::vector<std::int64_t> sizes = hosts_of_leaves(nodes, net.per_leaf);
  for (std::size_t rail = 0; rail < rails.size(); ++rail) {
    const std::string of = fmt::format(" of rail {}", rail);
    add_spines(f, add_leaves(f, rails[rail], net, of, "rail"), sizes, net, of);
  }
  return f.build(device, paths, p.at(), listed.summary);
}

}  // namespace epsim::parts_cluster
