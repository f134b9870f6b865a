#include "topology/cluster/shared/router_links.h"

#include <fmt/format.h>

namespace epsim {

Fabric RouterLinks::ranks(std::int64_t count) const {
  Fabric f;
  for (std::int64_t r = 0; r < count; ++r) {
    const std::int32_t rank = f.add_rank(Node(r / per_node));
    f.add_cable(rank, f.add_switch(fmt::format("router {}", r)), "injection", inject);
  }
  return f;
}

RouterLinks read_router_links(Params& p, double ways, std::string_view in_words) {
  const std::int64_t per_node = p.integer("ranks_per_node", "neighbouring ranks that count as one node", 1, 1, kMaxRanks);
  const Device& device = read_device(p);
  const Port link = {p.bandwidth("bandwidth", "rate of a link to a neighbour, one direction", device.scale_up_bandwidth.value / ways,
                                 fmt::format("the device's scale-up rate / {}", in_words)),
                     p.time("latency", "time of one hop to a neighbour", time_from_seconds(device.scale_up_latency.value), "the device's scale-up latency")};
  const Port inject = {p.bandwidth("injection", "rate between a rank and its router, one direction", link.bandwidth * ways, fmt::format("{} x bandwidth, which never binds", in_words)), Time{}};
  return {per_node, device, link, inject, read_paths(p, PathRule::Kind::first)};
}

void check_nodes(Params& p, const RouterLinks& links, std::int64_t ranks) {
  if (ranks % links.per_node != 0) p.error("ranks_per_node", fmt::format("{} ranks are no whole number of nodes of {}", ranks, links.per_node));
}

}  // namespace epsim
