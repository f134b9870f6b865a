#include <fmt/format.h>

#include <algorithm>

#include "topology/cluster/shared/leaf_spine.h"

namespace epsim::parts_cluster {

Topology supernode(Params& p) {
  Topology listed;
  listed.summary = "Flat supernodes in the style of CloudMatrix384: every rank is on a two-level non-blocking bus of switch planes; several supernodes are joined by NICs, leaves and spines.";
  const std::int64_t supernodes = p.integer("supernodes", "number of supernodes", 1, 1, kMaxRanks);
  const std::int64_t servers = p.integer("servers", "servers of a supernode; a server is a node", 48, 1, kMaxRanks);
  const std::int64_t per_server = p.integer("ranks_per_server", "ranks of a server", 8, 1, kMaxRanks);
  const std::int64_t planes = p.integer("planes", "planes of the bus: switches of a server, each with a link to every rank of it; 1 stands for all, which is exact where traffic is spread evenly over them", 1, 1, 64);
  const std::int64_t upper = p.integer("switches_per_plane", "second-level switches of a plane, each with a link to every server", per_server, 1, 4096,
                                       "ranks_per_server: each link has the rate of a rank's");
  const Device& device = read_device(p);
  const Port inner = read_scale_up(p, device);
  const Time bus_latency = p.time("bus_latency", "time of one hop between a server's switch and a second-level switch", inner.latency, "latency");
  const std::int64_t ranks = supernodes * servers * per_server;
  const LeafSpine net = read_leaf_spine(p, "ranks_per_leaf", ranks, device, device.nic_bandwidth.value, "the device's NIC rate");
  const Paths paths = read_paths(p);
  for (const char* key : {"oversubscription", "ranks_per_leaf", "spines", "nic_bandwidth", "nic_latency", "switch_latency"})
    if (supernodes == 1 && p.has(key)) p.error(key, fmt::format("`{}` is of the network between supernodes, and there is one", key));
  if (p.usable()) check_ranks(p, "servers", ranks);
  if (p.usable() && supernodes > 1) check_spine_links(p, (ranks + net.per_leaf - 1) / net.per_leaf, net.spines);
  if (!p.usable()) return listed;

  Fabric f;
  std::vector<HostPort> hosts;
  const double rate = inner.bandwidth / static_cast<double>(planes);
  for (std::int64_t n = 0; n < supernodes; ++n) {
    std::vector<std::vector<std::int32_t>> tops(static_cast<std::size_t>(planes));
    for (std::int64_t plane = 0; plane < planes && servers > 1; ++plane)
      for (std::int64_t s = 0; s < upper; ++s) tops[static_cast<std::size_t>(plane)].push_back(f.add_switch(fmt::format("switch {} of plane {} of supernode {}", s, plane, n)));
    for (std::int64_t server = n * servers; server < (n + 1) * servers; ++server) {
      std::vector<std::int32_t> here;
      for (std::int64_t i = 0; i < per_server; ++i) here.push_back(f.add_rank(Node(server)));
      for (std::int64_t plane = 0; plane < planes; ++plane) {
        const std::int32_t hub = f.add_switch(fmt::format("switch of plane {} of server {}", plane, server));
        for (const std::int32_t rank : here) f.add_cable(rank, hub, "ub", {rate, inner.latency});
        for (const std::int32_t top : tops[static_cast<std::size_t>(plane)])
          f.add_cable(hub, top, "ub-2", {static_cast<double>(per_server) * rate / static_cast<double>(upper), bus_latency});
      }
      for (const std::int32_t rank : here) hosts.push_back({rank, rank});
    }
  }
  if (supernodes > 1) {
    const std::vector<std::int32_t> leaves = add_leaves(f, hosts, net, "", "host");
    add_spines(f, leaves, hosts_of_leaves(ranks, net.per_leaf), net, "");
    // Inside a supernode the bus is taken, though a leaf may be fewer links away.
    for (Link& link : f.links)
      if (link.tier == "host") link.cost = 3;
  }
  return f.build(device, paths, p.at(), listed.summary);
}

}  // namespace epsim::parts_cluster
