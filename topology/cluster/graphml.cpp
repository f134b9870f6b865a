#include "topology/cluster/shared/fabric.h"
#include "topology/graphml_cluster.h"

namespace epsim::parts_cluster {

Topology graphml(Params& p) {
  constexpr std::size_t kMaxFile = std::size_t{64} << 20;
  Topology listed;
  listed.summary = "Any graph of ranks, switches and links, from a GraphML file.";
  const std::string file =
      p.path("file", "GraphML file; nodes: kind (rank or switch), name, node, rank; edges: bandwidth or gbps, latency or latency_ns, tier, name");
  const Device& device = read_device(p);
  const Paths paths = read_paths(p);
  if (!p.usable()) return listed;

  auto text = read_text(file, kMaxFile);
  GraphmlCluster cluster = read_graphml_cluster(text);
  Fabric f;
  f.vertices = std::move(cluster.vertices);
  f.links = std::move(cluster.links);
  return f.build(device, paths, {text, 0, 0}, listed.summary);
}

}  // namespace epsim::parts_cluster
