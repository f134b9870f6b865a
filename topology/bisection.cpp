#include "topology/bisection.h"

#include <boost/graph/adjacency_list.hpp>
#include <boost/graph/push_relabel_max_flow.hpp>
#include <cmath>

namespace epsim {

Bandwidth bisection_bandwidth(const Topology& topology) {
  using Traits = boost::adjacency_list_traits<boost::vecS, boost::vecS, boost::directedS>;
  using Capacities = boost::property<boost::edge_capacity_t, std::int64_t,
                                     boost::property<boost::edge_residual_capacity_t, std::int64_t, boost::property<boost::edge_reverse_t, Traits::edge_descriptor>>>;
  using Graph = boost::adjacency_list<boost::vecS, boost::vecS, boost::directedS, boost::no_property, Capacities>;
  const std::size_t vertices = topology.vertices().size(), source = vertices, sink = vertices + 1;
  Graph g(vertices + 2);
  const auto capacity = boost::get(boost::edge_capacity, g);
  const auto reverse = boost::get(boost::edge_reverse, g);
  const auto join = [&](std::size_t from, std::size_t to, double rate) {
    const auto there = boost::add_edge(from, to, g).first, back = boost::add_edge(to, from, g).first;
    capacity[there] = std::llround(rate), capacity[back] = 0;
    reverse[there] = back, reverse[back] = there;
  };
  // A rank of the first half only sends and one of the second only receives, so nothing passes through one. A half may hand over all that its ports take.
  std::vector<double> ports(vertices);
  const auto half = [&](std::int32_t v) {
    const Rank rank = topology.vertices()[static_cast<std::size_t>(v)].rank;
    return !rank.valid() ? 0 : rank < topology.ranks() / 2 ? 1 : 2;
  };
  for (const Link& link : topology.links()) {
    if (half(link.from) == 2 || half(link.to) == 1) continue;
    join(static_cast<std::size_t>(link.from), static_cast<std::size_t>(link.to), link.bandwidth);
    if (half(link.from) == 1) ports[static_cast<std::size_t>(link.from)] += link.bandwidth + 1;
    if (half(link.to) == 2) ports[static_cast<std::size_t>(link.to)] += link.bandwidth + 1;
  }
  for (std::size_t v = 0; v < vertices; ++v) {
    if (ports[v] == 0) continue;
    if (half(static_cast<std::int32_t>(v)) == 1)
      join(source, v, ports[v]);
    else
      join(v, sink, ports[v]);
  }
  return static_cast<double>(boost::push_relabel_max_flow(g, source, sink));
}

}  // namespace epsim
