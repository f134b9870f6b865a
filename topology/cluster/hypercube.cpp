#include <fmt/format.h>

#include "topology/cluster/shared/fabric.h"

namespace epsim::parts_cluster {

Topology hypercube(Params& p) {
  Topology listed;
  listed.summary = "2^n ranks with a router each; routers whose numbers differ in one bit are joined. Paths turn the lowest differing bit first.";
  const std::int64_t n = p.integer("dimensions", "n of 2^n ranks", {}, 0, 14);
  const std::int64_t per_node = p.integer("ranks_per_node", "neighbouring ranks that count as one node", 1, 1, kMaxRanks);
  const Device& device = read_device(p);
  const auto ways = static_cast<double>(n > 0 ? n : 1);
  const Port link = {p.bandwidth("bandwidth", "rate of a link to a neighbour, one direction", device.scale_up_bandwidth.value / ways, "the device's scale-up rate / dimensions"),
                     p.time("latency", "time of one hop to a neighbour", time_from_seconds(device.scale_up_latency.value), "the device's scale-up latency")};
  const Port inject = {p.bandwidth("injection", "rate between a rank and its router, one direction", link.bandwidth * ways, "dimensions x bandwidth, which never binds"), Time{}};
  const Paths paths = read_paths(p, PathRule::Kind::first);
  const std::int64_t ranks = std::int64_t{1} << n;
  if (p.usable() && ranks % per_node != 0) p.error("ranks_per_node", fmt::format("{} ranks are no whole number of nodes of {}", ranks, per_node));
  if (!p.usable()) return listed;

  Fabric f;
  for (std::int64_t r = 0; r < ranks; ++r) {
    const std::int32_t rank = f.add_rank(Node(r / per_node));
    f.add_cable(rank, f.add_switch(fmt::format("router {}", r)), "injection", inject);
  }
  for (std::int64_t r = 0; r < ranks; ++r)
    for (std::int64_t bit = 0; bit < n; ++bit)
      f.add_link(static_cast<std::int32_t>(2 * r + 1), static_cast<std::int32_t>(2 * (r ^ (std::int64_t{1} << bit)) + 1), fmt::format("dim {}", bit), link);
  return f.build(device, paths, p.at(), listed.summary);
}

}  // namespace epsim::parts_cluster
