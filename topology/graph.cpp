#include "topology/graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/graph/breadth_first_search.hpp>
#include <boost/graph/compressed_sparse_row_graph.hpp>
#include <boost/graph/dijkstra_shortest_paths.hpp>
#include <boost/graph/graphml.hpp>
#include <boost/property_tree/xml_parser.hpp>
#include <limits>
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

/// Edges point backwards, so that one search finds the costs to a destination.
struct SwitchGraph::Graph {
  using Edges = boost::compressed_sparse_row_graph<boost::directedS, boost::no_property, std::int32_t>;
  Edges backwards;
  bool equal_costs = true;  // then a search in breadth does
};

SwitchGraph::SwitchGraph(std::span<const Vertex> vertices, std::span<const Link> links) {
  for (const Vertex& v : vertices) switch_of_vertex_.push_back(v.rank.valid() ? -1 : switches_++);
  auto graph = std::make_unique<Graph>();
  std::vector<std::pair<std::size_t, std::size_t>> ends;
  std::vector<std::int32_t> costs;
  for (const Link& link : links) {
    const std::int32_t from = switch_of(link.from), to = switch_of(link.to);
    if (from < 0 || to < 0) continue;
    ends.emplace_back(static_cast<std::size_t>(to), static_cast<std::size_t>(from));
    costs.push_back(link.cost);
    graph->equal_costs &= link.cost == costs.front();
  }
  graph->backwards = Graph::Edges(boost::edges_are_unsorted_multi_pass, ends.begin(), ends.end(), costs.begin(), static_cast<std::size_t>(switches_));
  graph_ = std::move(graph);
}

SwitchGraph::~SwitchGraph() = default;

void SwitchGraph::costs_to(std::int32_t destination, std::span<std::int32_t> costs) const {
  const auto& g = graph_->backwards;
  const auto index = boost::get(boost::vertex_index, g);
  const auto start = static_cast<std::size_t>(destination);
  const auto distance = boost::make_iterator_property_map(costs.begin(), index);
  if (graph_->equal_costs) {
    std::fill(costs.begin(), costs.end(), -1);
    costs[start] = 0;
    boost::two_bit_color_map color(costs.size(), index);
    boost::breadth_first_visit(g, start, boost::visitor(boost::make_bfs_visitor(boost::record_distances(distance, boost::on_tree_edge()))).color_map(color));
    const std::int32_t step = boost::num_edges(g) == 0 ? 1 : boost::get(boost::edge_bundle, g, *boost::edges(g).first);
    for (std::int32_t& c : costs) c = c < 0 ? c : c * step;
  } else {
    boost::dijkstra_shortest_paths(g, start, boost::distance_map(distance).weight_map(boost::get(boost::edge_bundle, g)));
    for (std::int32_t& c : costs) c = c == std::numeric_limits<std::int32_t>::max() ? -1 : c;
  }
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
