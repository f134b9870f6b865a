#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "topology/graph.h"

namespace epsim {

/// Where the elements of a GraphML file stand, which Boost's reader does not tell.
struct GraphmlOutline {
  struct Node {
    std::string id;
    std::size_t offset = 0;
  };
  bool directed = false;
  std::vector<AttributedGraph::Key> keys;
  std::vector<Node> nodes;
  std::vector<std::size_t> edges;  ///< offset of each
};

/// Checks the form of a GraphML text before a recursive parser sees it: well-formed XML of at most 16 levels without DOCTYPE, one flat graph, unique node ids,
/// edges between known nodes, data of declared keys. Throws InputError: a broken tag ends the pass, everything else is collected.
GraphmlOutline outline_graphml(std::shared_ptr<const SourceText> source);

}  // namespace epsim
