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

/// Least costs over the links between switches, so that no path passes through a rank.
class SwitchGraph {
 public:
  SwitchGraph(std::span<const Vertex> vertices, std::span<const Link> links);
  ~SwitchGraph();
  std::int32_t switches() const { return switches_; }
  std::int32_t switch_of(std::int32_t vertex) const { return switch_of_vertex_[static_cast<std::size_t>(vertex)]; }  ///< switches count from 0; -1 for a rank
  /// Writes the least sum of link costs from every switch to `destination` into costs [switches]; -1 where there is no path. May be called from several threads.
  void costs_to(std::int32_t destination, std::span<std::int32_t> costs) const;

 private:
  struct Graph;
  std::int32_t switches_ = 0;
  std::vector<std::int32_t> switch_of_vertex_;
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
