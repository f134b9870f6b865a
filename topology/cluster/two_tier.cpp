#include <fmt/format.h>

#include "topology/cluster/shared/fabric.h"

namespace epsim::parts_cluster {

Topology two_tier(Params& p) {
  Topology listed;
  listed.summary = "A fast switch in each node and one uplink a node, shared by its ranks, to a core switch.";
  const std::int64_t nodes = p.integer("nodes", "number of nodes", {}, 1, kMaxRanks),
                     per_node = p.integer("ranks_per_node", "ranks of a node", {}, 1, kMaxRanks);
  const Device& device = read_device(p);
  const Port inner = read_scale_up(p, device);
  const Port uplink = {p.bandwidth("uplink", "rate of a node's link to the core, one direction", static_cast<double>(per_node) * device.nic_bandwidth.value,
                                   "ranks_per_node x the device's NIC rate"),
                       p.time("uplink_latency", "time of one hop between a node and the core; a path has two", time_from_seconds(device.nic_latency.value),
                              "the device's NIC latency")};
  const Paths paths = read_paths(p);
  if (p.usable()) check_ranks(p, "nodes", nodes * per_node);
  if (!p.usable()) return listed;

  Fabric f;
  const std::int32_t core = f.add_switch("core");
  for (Node n : ids<Node>(nodes)) {
    const std::int32_t hub = f.add_node(n, per_node, inner);
    f.add_link(hub, core, "uplink", uplink, fmt::format("uplink of node {}", n.value));
    f.add_link(core, hub, "uplink", uplink, fmt::format("downlink of node {}", n.value));
  }
  return f.build(device, paths, p.at(), listed.summary);
}

}  // namespace epsim::parts_cluster
