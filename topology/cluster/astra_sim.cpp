#include "topology/cluster/shared/astra_sim.h"

namespace epsim::parts_cluster {

Topology astra_sim(Params& p) {
  Topology listed;
  listed.summary = "The dimensions of an ASTRA-sim analytical network file: rings, switches and full meshes; paths turn dimension after dimension.";
  const std::string file = p.path("file", "YAML with the lists topology, npus_count, bandwidth (GB/s) and latency (ns), innermost dimension first");
  const Device& device = read_device(p);
  const Paths paths = read_paths(p, PathRule::Kind::first);
  if (!p.usable()) return listed;

  const auto text = read_text(file, std::size_t{1} << 20);
  return read_astra_sim(text).build(device, paths, {text, 0, 0}, listed.summary);
}

}  // namespace epsim::parts_cluster
