#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/check.h"

namespace epsim {

struct Vertex;
struct Link;

/// Distances in links over a directed graph whose ranks are ends of paths and never passed through.
class HopGraph {
 public:
  HopGraph(std::span<const Vertex> vertices, std::span<const Link> links);
  ~HopGraph();
  /// Writes the fewest links from every vertex to `destination` into hops [V]; -1 where there is no path. May be called from several threads.
  void hops_to(std::int32_t destination, std::span<std::int32_t> hops) const;

 private:
  struct Graph;
  std::unique_ptr<const Graph> graph_;
};

/// A GraphML file's graph with all attributes as text, in the order of the file.
struct AttributedGraph {
  struct Element {
    std::size_t offset = 0;  ///< byte in the file where its tag begins
    std::map<std::string, std::string> attributes;
  };
  struct Node : Element {
    std::string id;
  };
  struct Edge : Element {
    std::int32_t source = 0, target = 0;  ///< indices of nodes
  };
  /// A declared attribute.
  struct Key {
    std::string name;
    std::size_t offset = 0;
  };
  bool directed = false;
  std::vector<Key> keys;
  std::vector<Node> nodes;
  std::vector<Edge> edges;
};

/// Reads GraphML: one graph without nesting, hyperedges or ports. Throws InputError with the line and column of every problem found.
AttributedGraph read_graphml(std::shared_ptr<const SourceText> source);

}  // namespace epsim
