#include <fmt/format.h>

#include "topology/cluster/shared/fabric.h"

namespace epsim::parts_cluster {

/// Kim, Dally, Scott, Abts, "Technology-driven, highly-scalable dragonfly topology", ISCA 2008. Minimal paths: to the router with a link to the group, over it, and to the destination's router.
Topology dragonfly(Params& p) {
  Topology listed;
  listed.summary = "Groups of routers that are all joined; global links join all groups, spread evenly over a group's routers. Paths are minimal: at most one global link.";
  const std::int64_t groups = p.integer("groups", "number of groups", {}, 1, kMaxRanks);
  const std::int64_t routers = p.integer("routers_per_group", "routers of a group", {}, 1, 4096);
  const std::int64_t hosts = p.integer("hosts_per_router", "hosts of a router", {}, 1, 4096);
  const std::int64_t per_node = p.integer("ranks_per_node", "ranks of a host; several share its link through a switch", 1, 1, kMaxRanks);
  const std::int64_t globals = p.integer("global_links", "global links of a router", hosts, 1, 4096, "hosts_per_router, which is the balanced dragonfly with 2 x hosts_per_router routers a group");
  const Device& device = read_device(p);
  const Port inner = read_scale_up(p, device);
  const Bandwidth rate = static_cast<double>(per_node) * device.nic_bandwidth.value;
  const Port nic = {p.bandwidth("nic_bandwidth", "rate between a host and its router, one direction", rate, "ranks_per_node x the device's NIC rate"),
                    p.time("nic_latency", "time of one hop between a host and its router", time_from_seconds(device.nic_latency.value), "the device's NIC latency")};
  const Time hop = time_from_seconds(device.switch_latency.value);
  const Port local = {p.bandwidth("local_bandwidth", "rate between two routers of a group", nic.bandwidth, "nic_bandwidth"),
                      p.time("local_latency", "time of one hop inside a group", hop, "the device's switch latency")};
  const Port global = {p.bandwidth("global_bandwidth", "rate of a global link", nic.bandwidth, "nic_bandwidth"),
                       p.time("global_latency", "time of one hop between groups", hop, "the device's switch latency")};
  const Paths paths = read_paths(p);
  for (const char* key : {"bandwidth", "latency"})
    if (per_node == 1 && p.has(key)) p.error(key, fmt::format("`{}` is of links inside a node, which a node of one rank does not have", key));
  if (p.usable()) check_ranks(p, "groups", groups * routers * hosts * per_node);
  const std::int64_t ends = routers * globals;  // of a group
  if (p.usable() && ends < groups - 1)
    p.error("global_links", fmt::format("{} routers x {} global links of a group do not reach {} other groups", routers, globals, groups - 1));
  if (p.usable() && groups * (ends + routers * routers) > 2'000'000) p.error("routers_per_group", "more than 2000000 links");
  if (!p.usable()) return listed;

  Fabric f;
  std::vector<std::int32_t> router;
  for (std::int64_t g = 0; g < groups; ++g)
    for (std::int64_t r = 0; r < routers; ++r) {
      router.push_back(f.add_switch(fmt::format("router {} of group {}", r, g)));
      for (std::int64_t h = 0; h < hosts; ++h) {
        const Node node((g * routers + r) * hosts + h);
        f.add_cable(per_node == 1 ? f.add_rank(node) : f.add_node(node, per_node, inner), router.back(), "host", nic);
      }
    }
  const auto at = [&](std::int64_t group, std::int64_t place) { return router[static_cast<std::size_t>(group * routers + place)]; };
  for (std::int64_t g = 0; g < groups; ++g)
    for (std::int64_t a = 0; a < routers; ++a)
      for (std::int64_t b = a + 1; b < routers; ++b) f.add_cable(at(g, a), at(g, b), "local", local);
  // End e of a group leads to the group 1 + e mod (groups - 1) behind it, and belongs to router e / global_links. Ends that are left over, too few for all groups, stay free.
  for (std::int64_t copy = 0; groups > 1 && copy < ends / (groups - 1); ++copy)
    for (std::int64_t a = 0; a < groups; ++a)
      for (std::int64_t b = a + 1; b < groups; ++b) {
        const std::int32_t from = at(a, ((b - a - 1) + copy * (groups - 1)) / globals), to = at(b, ((a - b - 1 + groups) + copy * (groups - 1)) / globals);
        for (const auto& [x, y] : {std::pair{from, to}, std::pair{to, from}}) {
          f.add_link(x, y, "global", global, fmt::format("{} -> {}, global link {}", f.vertices[static_cast<std::size_t>(x)].name, f.vertices[static_cast<std::size_t>(y)].name, copy));
          // Two global links would cost more than one and a local hop at each of its ends.
          f.links.back().cost = 3;
        }
      }
  return f.build(device, paths, p.at(), listed.summary);
}

}  // namespace epsim::parts_cluster
