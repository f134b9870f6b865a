#include "topology/graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/graph/adjacency_list.hpp>
#include <boost/graph/breadth_first_search.hpp>
#include <boost/graph/graphml.hpp>
#include <boost/property_tree/xml_parser.hpp>
#include <sstream>

#include "topology/graphml_outline.h"
#include "topology/topology.h"

namespace epsim {
namespace {

/// What Boost's reader fills: keeps every attribute as the text it was written in, whatever type the file declares for it.
class Collector : public boost::mutate_graph {
 public:
  explicit Collector(AttributedGraph& graph) : graph_(graph) {}

  bool is_directed() const override { return graph_.directed; }
  boost::any do_add_vertex() override {
    graph_.nodes.emplace_back();
    return graph_.nodes.size() - 1;
  }
  std::pair<boost::any, bool> do_add_edge(boost::any source, boost::any target) override {
    AttributedGraph::Edge edge;
    edge.source = static_cast<std::int32_t>(boost::any_cast<std::size_t>(source));
    edge.target = static_cast<std::int32_t>(boost::any_cast<std::size_t>(target));
    graph_.edges.push_back(std::move(edge));
    return {graph_.edges.size() - 1, true};
  }
  void set_graph_property(const std::string&, const std::string&, const std::string&) override {}
  void set_vertex_property(const std::string& name, boost::any vertex, const std::string& value, const std::string&) override {
    graph_.nodes[boost::any_cast<std::size_t>(vertex)].attributes[name] = value;
  }
  void set_edge_property(const std::string& name, boost::any edge, const std::string& value, const std::string&) override {
    graph_.edges[boost::any_cast<std::size_t>(edge)].attributes[name] = value;
  }

 private:
  AttributedGraph& graph_;
};

}  // namespace

/// Edges point backwards, so that one search finds the distances to a destination. A rank is two vertices: v, where paths end, and V + v, where they begin.
struct HopGraph::Graph {
  explicit Graph(std::size_t vertices) : backwards(2 * vertices) {}

  boost::adjacency_list<boost::vecS, boost::vecS, boost::directedS> backwards;
  std::vector<std::int32_t> start;  // [V] the vertex that paths from v begin at
};

HopGraph::HopGraph(std::span<const Vertex> vertices, std::span<const Link> links) {
  auto graph = std::make_unique<Graph>(vertices.size());
  const auto count = static_cast<std::int32_t>(vertices.size());
  for (std::int32_t v = 0; v < count; ++v) graph->start.push_back(vertices[static_cast<std::size_t>(v)].rank.valid() ? count + v : v);
  for (const Link& link : links)
    boost::add_edge(static_cast<std::size_t>(link.to), static_cast<std::size_t>(graph->start[static_cast<std::size_t>(link.from)]), graph->backwards);
  graph_ = std::move(graph);
}

HopGraph::~HopGraph() = default;

void HopGraph::hops_to(std::int32_t destination, std::span<std::int32_t> hops) const {
  const auto& g = graph_->backwards;
  const auto index = boost::get(boost::vertex_index, g);
  std::vector<std::int32_t> distance(boost::num_vertices(g), -1);
  std::vector<boost::default_color_type> color(boost::num_vertices(g), boost::white_color);
  distance[static_cast<std::size_t>(destination)] = 0;
  const auto record = boost::record_distances(boost::make_iterator_property_map(distance.begin(), index), boost::on_tree_edge());
  boost::breadth_first_visit(g, static_cast<std::size_t>(destination),
                             boost::visitor(boost::make_bfs_visitor(record)).color_map(boost::make_iterator_property_map(color.begin(), index)));
  for (std::size_t v = 0; v < hops.size(); ++v) hops[v] = distance[static_cast<std::size_t>(graph_->start[v])];
  hops[static_cast<std::size_t>(destination)] = 0;
}

AttributedGraph read_graphml(std::shared_ptr<const SourceText> source) {
  const GraphmlOutline outline = outline_graphml(source);
  AttributedGraph graph;
  graph.directed = outline.directed;
  graph.keys = outline.keys;
  try {
    std::istringstream in(source->text);
    Collector collector(graph);
    boost::read_graphml(in, collector, 0);
  } catch (const boost::property_tree::xml_parser_error& e) {
    throw InputError({source, static_cast<int>(e.line()), 1}, fmt::format("is not XML: {}", e.message()));
  } catch (const std::exception& e) {
    throw InputError({source, 0, 0}, fmt::format("is not GraphML: {}", e.what()));
  }
  if (graph.nodes.size() != outline.nodes.size() || graph.edges.size() != outline.edges.size())
    throw InputError({source, 0, 0}, "is not GraphML: node ids are not unique or edges name unknown nodes once character entities are resolved");
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) graph.nodes[i].offset = outline.nodes[i].offset, graph.nodes[i].id = outline.nodes[i].id;
  for (std::size_t i = 0; i < graph.edges.size(); ++i) graph.edges[i].offset = outline.edges[i];
  return graph;
}

}  // namespace epsim
