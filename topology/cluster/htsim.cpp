#include "topology/cluster/shared/htsim.h"

namespace epsim::parts_cluster {

Topology htsim(Params& p) {
  Topology listed;
  listed.summary = "The fat tree of an htsim .topo file; a node is a rank.";
  const std::string file = p.path("file", "Nodes, Tiers and Podsize, then for each Tier its Downlink_speed_Gbps, Radix_Down, Radix_Up, Downlink_Latency_ns, Bundle and Switch_Latency_ns");
  const Device& device = read_device(p);
  const Paths paths = read_paths(p);
  if (!p.usable()) return listed;

  const auto text = read_text(file, std::size_t{1} << 20);
  return read_htsim(text).build(device, paths, {text, 0, 0}, listed.summary);
}

}  // namespace epsim::parts_cluster
