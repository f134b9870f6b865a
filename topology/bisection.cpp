#include "topology/bisection.h"

#include <algorithm>
#include <boost/graph/adjacency_list.hpp>
#include <boost/graph/push_relabel_max_flow.hpp>
#include <cmath>

namespace epsim {

Bandwidth cut_bandwidth(const Topology& topology, const std::vector<bool>& side) {
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
  // A rank of the side only sends and the others only receive, so nothing passes through one. A side may hand over all that its ports take.
  std::vector<double> ports(vertices);
  const auto half_of = [&](std::int32_t v) {
    const Rank rank = topology.vertices()[static_cast<std::size_t>(v)].rank;
    return !rank.valid() ? 0 : side[static_cast<std::size_t>(rank)] ? 1 : 2;
  };
  for (const Link& link : topology.links()) {
    if (half_of(link.from) == 2 || half_of(link.to) == 1) continue;
    join(static_cast<std::size_t>(link.from), static_cast<std::size_t>(link.to), link.bandwidth);
    if (half_of(link.from) == 1) ports[static_cast<std::size_t>(link.from)] += link.bandwidth + 1;
    if (half_of(link.to) == 2) ports[static_cast<std::size_t>(link.to)] += link.bandwidth + 1;
  }
  for (std::size_t v = 0; v < vertices; ++v) {
    if (ports[v] == 0) continue;
    if (half_of(static_cast<std::int32_t>(v)) == 1)
      join(source, v, ports[v]);
    else
      join(v, sink, ports[v]);
  }
  return static_cast<double>(boost::push_relabel_max_flow(g, source, sink));
}

Bandwidth bisection_bandwidth(const Topology& topology) {
  std::vector<bool> first_half(static_cast<std::size_t>(topology.ranks()));
  std::fill_n(first_half.begin(), topology.ranks() / 2, true);
  return cut_bandwidth(topology, first_half);
}

}  // namespace epsim
