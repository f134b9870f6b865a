#pragma once
#include <memory>
#include <vector>

#include "base/check.h"
#include "topology/topology.h"

namespace epsim {

/// The vertices and links that a GraphML file describes.
/// Nodes have `kind` (rank or switch), `name` (default: the id) and, of a rank, `node` and `rank` (default: ranks count in the order of the file).
/// Edges have `bandwidth` with a unit or `gbps` (gigabits a second), `latency` with a unit or `latency_ns`, and may have `tier` (default "link") and `name`
/// (default "A -> B"). An undirected edge is two links, and its name gets their direction.
struct GraphmlCluster {
  std::vector<Vertex> vertices;
  std::vector<Link> links;
};

/// Reads a cluster from GraphML. Throws InputError with the line and column of every problem found.
GraphmlCluster read_graphml_cluster(std::shared_ptr<const SourceText> source);

}  // namespace epsim
