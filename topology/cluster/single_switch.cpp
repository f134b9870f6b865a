#include <fmt/format.h>

#include "topology/cluster/shared/fabric.h"

namespace epsim::parts_cluster {

Topology single_switch(Params& p) {
  Topology listed;
  listed.summary = "One switch with a full-duplex port for each rank.";
  const std::int64_t ranks = p.integer("ranks", "number of ranks", {}, 1, kMaxRanks);
  const std::int64_t per_node = p.integer("ranks_per_node", "ranks that count as one node", ranks, 1, std::int64_t{1} << 40, "all ranks");
  const Device& device = read_device(p);
  const Port port = read_scale_up(p, device);
  const Paths paths = read_paths(p);
  if (p.usable() && ranks % per_node != 0) p.error("ranks_per_node", fmt::format("{} ranks are no whole number of nodes of {}", ranks, per_node));
  if (!p.usable()) return listed;

  Fabric f;
  const std::int32_t hub = f.add_switch("switch");
  for (std::int64_t r = 0; r < ranks; ++r) f.add_cable(f.add_rank(Node(r / per_node)), hub, "nvlink", port);
  return f.build(device, paths, p.at(), listed.summary);
}

}  // namespace epsim::parts_cluster
