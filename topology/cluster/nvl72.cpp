#include <fmt/format.h>

#include <algorithm>

#include "topology/cluster/shared/leaf_spine.h"

namespace epsim::parts_cluster {

Topology nvl72(Params& p) {
  Topology listed;
  listed.summary = "Domains of 72 ranks on NVSwitches, one NIC a rank on an InfiniBand rail, and spines that join the rails' leaves.";
  const std::int64_t domains = p.integer("domains", "number of NVLink domains; a domain is a node", {}, 1, kMaxRanks);
  const std::int64_t per_domain = p.integer("ranks_per_domain", "ranks of a domain", 72, 1, kMaxRanks);
  const std::int64_t planes = p.integer("planes", "NVSwitches of a domain, each with a link to every rank; 1 stands for all of them, which is exact where traffic is spread evenly over them", 1, 1, 64);
  const std::int64_t rails = p.integer("rails", "rails; rank i of a domain is on rail i mod rails", std::min<std::int64_t>(4, per_domain), 1, kMaxRanks, "4, the GPUs of a tray");
  const Device& device = read_device(p);
  const Port inner = read_scale_up(p, device);
  const std::int64_t of_rail = domains * ((per_domain + rails - 1) / rails);
  const LeafSpine net = read_leaf_spine(p, "ranks_per_leaf", of_rail, device, device.nic_bandwidth.value, "the device's NIC rate");
  const Paths paths = read_paths(p);
  if (p.usable() && rails > per_domain) p.error("rails", fmt::format("{} ranks cannot be on {} rails", per_domain, rails));
  if (p.usable()) check_ranks(p, "domains", domains * per_domain);
  if (p.usable()) check_spine_links(p, (of_rail + net.per_leaf - 1) / net.per_leaf * rails, net.spines);
  if (!p.usable()) return listed;

  Fabric f;
  std::vector<std::vector<HostPort>> hosts(static_cast<std::size_t>(rails));
  for (Node n : ids<Node>(domains)) {
    std::vector<std::int32_t> switches;
    for (std::int64_t s = 0; s < planes; ++s) switches.push_back(f.add_switch(planes == 1 ? fmt::format("nvswitch {}", n.value) : fmt::format("nvswitch {} of domain {}", s, n.value)));
    for (std::int64_t i = 0; i < per_domain; ++i) {
      const std::int32_t rank = f.add_rank(n);
      for (const std::int32_t s : switches) f.add_cable(rank, s, "nvlink", {inner.bandwidth / static_cast<double>(planes), inner.latency});
      hosts[static_cast<std::size_t>(i % rails)].push_back({rank, rank});
    }
  }
  if (domains > 1) {
    std::vector<std::int32_t> leaves;
    std::vector<std::int64_t> sizes;
    for (std::size_t rail = 0; rail < hosts.size(); ++rail) {
      for (const std::int32_t leaf : add_leaves(f, hosts[rail], net, fmt::format(" of rail {}", rail), "rail")) leaves.push_back(leaf);
      for (const std::int64_t size : hosts_of_leaves(static_cast<std::int64_t>(hosts[rail].size()), net.per_leaf)) sizes.push_back(size);
    }
    add_spines(f, leaves, sizes, net, "");
    // Ranks of a domain may share a leaf too, but the NVSwitch is taken.
    for (Link& link : f.links)
      if (link.tier == "rail") link.cost = 2;
  }
  return f.build(device, paths, p.at(), listed.summary);
}

}  // namespace epsim::parts_cluster
