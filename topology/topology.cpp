#include "topology/topology.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_set>

#include "base/rng.h"

namespace epsim {
namespace {

/// The index of each number 0 .. count-1 in `numbers`; problems where one is missing, double or too large.
std::vector<std::int32_t> positions(const std::vector<std::pair<std::int32_t, std::int32_t>>& numbers, std::string_view what, const Location& at,
                                    Diagnostics& problems) {
  std::vector<std::int32_t> out(numbers.size(), -1);
  for (const auto& [number, vertex] : numbers) {
    if (number < 0 || static_cast<std::size_t>(number) >= out.size())
      problems.add(at, fmt::format("{} {} is not within 0 to {}", what, number, static_cast<std::int64_t>(out.size()) - 1));
    else if (out[static_cast<std::size_t>(number)] >= 0)
      problems.add(at, fmt::format("there are two {}s {}", what, number));
    else
      out[static_cast<std::size_t>(number)] = vertex;
  }
  return out;
}

void check_links(const std::vector<Link>& links, std::size_t vertices, const Location& at, Diagnostics& problems) {
  std::unordered_set<std::string_view> names;
  names.reserve(links.size());
  for (const Link& link : links) {
    const auto within = [&](std::int32_t v) { return v >= 0 && static_cast<std::size_t>(v) < vertices; };
    if (!within(link.from) || !within(link.to) || link.from == link.to) problems.add(at, fmt::format("the link `{}` does not join two vertices", link.name));
    if (!(link.bandwidth > 0) || !std::isfinite(link.bandwidth)) problems.add(at, fmt::format("the bandwidth of the link `{}` must be above 0", link.name));
    if (link.cost < 1) problems.add(at, fmt::format("the cost of the link `{}` must be at least 1", link.name));
    if (link.latency.ps < 0) problems.add(at, fmt::format("the latency of the link `{}` must be at least 0", link.name));
    if (!names.insert(link.name).second) problems.add(at, fmt::format("two links are named `{}`", link.name));
  }
}

}  // namespace

Topology::Topology(std::vector<Vertex> vertices, std::vector<Link> links, Device device, Location at, PathRule rule)
    : vertices_(std::move(vertices)), links_(std::move(links)), device_(device), rule_(rule) {
  Diagnostics problems;
  std::vector<std::pair<std::int32_t, std::int32_t>> rank_numbers;
  std::int32_t highest_node = -1;
  for (std::size_t v = 0; v < vertices_.size(); ++v) {
    if (!vertices_[v].rank.valid()) continue;
    rank_numbers.emplace_back(vertices_[v].rank, static_cast<std::int32_t>(v));
    if (!vertices_[v].node.valid()) problems.add(at, fmt::format("rank {} has no node", vertices_[v].rank.value));
    highest_node = std::max(highest_node, vertices_[v].node.value);
  }
  if (rank_numbers.empty()) problems.add(at, "the cluster has no ranks");
  vertex_of_rank_ = positions(rank_numbers, "rank", at, problems);
  check_links(links_, vertices_.size(), at, problems);
  if (highest_node >= ranks()) problems.add(at, fmt::format("node {} is not within 0 to {}: nodes are numbered without gaps", highest_node, ranks() - 1));
  problems.check();

  ranks_of_node_.resize(static_cast<std::size_t>(highest_node) + 1);
  for (Rank r : ids<Rank>(ranks())) {
    const Node node = vertices_[static_cast<std::size_t>(vertex_of_rank_[r])].node;
    node_of_rank_.push_back(node);
    local_index_.push_back(static_cast<int>(ranks_of_node_[node].size()));
    ranks_of_node_[node].push_back(r);
  }
  for (Node n : ids<Node>(nodes()))
    if (ranks_of_node_[n].empty()) problems.add(at, fmt::format("node {} has no ranks: nodes are numbered without gaps", n.value));
  problems.check();
  next_hops_ = NextHops(vertices_, links_, vertex_of_rank_, at);
}

std::size_t Topology::hashed(std::size_t k, Rank s, Rank d, std::int32_t vertex) const {
  const auto word = [](auto v) { return static_cast<std::uint32_t>(v); };
  const std::uint32_t bits = philox({word(s.value), word(d.value), word(vertex), 0}, {word(rule_.seed), word(rule_.seed >> 32)})[0];
  return static_cast<std::size_t>(std::uint64_t{bits} * k >> 32);
}

std::vector<Topology::LinkShare> Topology::spread(Rank s, Rank d) const {
  struct Reached {
    std::int32_t vertex = 0, cost = 0;  // of the way there
    double share = 0;
  };
  std::vector<LinkShare> out;
  std::vector<std::int32_t> scratch;
  // Vertices in order of their cost from s: what a vertex passes on is complete when its turn comes. Few are open at a time.
  std::vector<Reached> open = {{vertex_of_rank_[s], 0, 1}};
  while (!open.empty()) {
    const auto nearest = std::min_element(open.begin(), open.end(), [](const Reached& a, const Reached& b) { return a.cost < b.cost; });
    const Reached now = *nearest;
    open.erase(nearest);
    if (now.vertex == vertex_of_rank_[d]) continue;
    const std::span<const std::int32_t> next = next_hops_(now.vertex, d, scratch);
    const double share = now.share / static_cast<double>(next.size());
    for (const std::int32_t l : next) {
      const Link& link = links_[static_cast<std::size_t>(l)];
      out.push_back({l, share});
      const auto known = std::find_if(open.begin(), open.end(), [&](const Reached& r) { return r.vertex == link.to; });
      if (known == open.end())
        open.push_back({link.to, now.cost + link.cost, share});
      else
        known->share += share;
    }
  }
  return out;
}

Time Topology::latency(Rank s, Rank d) const {
  Time sum;
  if (rule_.kind != PathRule::Kind::spread) {
    for_each_link(s, d, [&](std::int32_t link) { sum += links_[static_cast<std::size_t>(link)].latency; });
    return sum;
  }
  std::vector<std::pair<std::int32_t, Time>> reached = {{vertex_of_rank_[s], {}}};  // and the longest way there
  const auto at = [&](std::int32_t v) -> Time& {
    const auto known = std::find_if(reached.begin(), reached.end(), [&](const auto& r) { return r.first == v; });
    return known == reached.end() ? reached.emplace_back(v, Time{}).second : known->second;
  };
  for_each_link(s, d, [&](std::int32_t l) {
    const Link& link = links_[static_cast<std::size_t>(l)];
    const Time there = at(link.from) + link.latency;
    Time& longest = at(link.to);
    longest = std::max(longest, there);
  });
  return s == d ? sum : at(vertex_of_rank_[d]);
}

Bandwidth Topology::bandwidth(Rank s, Rank d) const {
  Bandwidth least = std::numeric_limits<Bandwidth>::infinity();
  for_each_share(s, d, [&](std::int32_t link, double share) { least = std::min(least, links_[static_cast<std::size_t>(link)].bandwidth / share); });
  return least;
}

}  // namespace epsim
