#include "topology/topology.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_set>

#include "base/parallel.h"
#include "topology/graph.h"

namespace epsim {
namespace {

constexpr std::size_t kMaxTable = std::size_t{1} << 29;  // entries of two bytes

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
  for (const Link& link : links) {
    const auto within = [&](std::int32_t v) { return v >= 0 && static_cast<std::size_t>(v) < vertices; };
    if (!within(link.from) || !within(link.to) || link.from == link.to) problems.add(at, fmt::format("the link `{}` does not join two vertices", link.name));
    if (!(link.bandwidth > 0) || !std::isfinite(link.bandwidth)) problems.add(at, fmt::format("the bandwidth of the link `{}` must be above 0", link.name));
    if (link.latency.ps < 0) problems.add(at, fmt::format("the latency of the link `{}` must be at least 0", link.name));
    if (!names.insert(link.name).second) problems.add(at, fmt::format("two links are named `{}`", link.name));
  }
}

}  // namespace

Topology::Topology(std::vector<Vertex> vertices, std::vector<Link> links, Device device, Location at)
    : vertices_(std::move(vertices)), links_(std::move(links)), device_(device) {
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
  if (vertices_.size() * vertex_of_rank_.size() > kMaxTable) problems.add(at, "the cluster is too large: its next-hop tables would pass 1 GiB");
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

  first_out_.assign(vertices_.size() + 1, 0);
  for (const Link& link : links_) ++first_out_[static_cast<std::size_t>(link.from) + 1];
  for (std::size_t v = 0; v < vertices_.size(); ++v) {
    if (first_out_[v + 1] > std::numeric_limits<std::uint16_t>::max()) problems.add(at, fmt::format("`{}` has more than 65535 links", vertices_[v].name));
    first_out_[v + 1] += first_out_[v];
  }
  problems.check();
  out_links_.resize(links_.size());
  std::vector<std::int32_t> next(first_out_.begin(), first_out_.end() - 1);
  for (std::size_t i = 0; i < links_.size(); ++i)
    out_links_[static_cast<std::size_t>(next[static_cast<std::size_t>(links_[i].from)]++)] = static_cast<std::int32_t>(i);
  fill_ports(at);
}

void Topology::fill_ports(const Location& at) {
  const HopGraph graph(vertices_, links_);
  const std::size_t columns = vertex_of_rank_.size();
  port_.assign(vertices_.size() * columns, 0);
  std::vector<std::int32_t> unreached(columns, -1);  // a rank that has no path to each rank
  parallel_for(ranks(), [&](std::int64_t d) {
    std::vector<std::int32_t> hops(vertices_.size());
    const std::int32_t destination = vertex_of_rank_[static_cast<std::size_t>(d)];
    graph.hops_to(destination, hops);
    for (std::size_t r = 0; r < columns; ++r)
      if (hops[static_cast<std::size_t>(vertex_of_rank_[r])] < 0) unreached[static_cast<std::size_t>(d)] = static_cast<std::int32_t>(r);
    const std::int32_t spread = node_of_rank_[static_cast<std::size_t>(d)] + local_index_[static_cast<std::size_t>(d)];
    for (std::size_t v = 0; v < vertices_.size(); ++v) {
      if (hops[v] <= 0) continue;
      const auto nearer = [&](std::int32_t i) {
        const std::int32_t to = links_[static_cast<std::size_t>(out_links_[static_cast<std::size_t>(i)])].to;
        return hops[static_cast<std::size_t>(to)] == hops[v] - 1 && (to == destination || !vertices_[static_cast<std::size_t>(to)].rank.valid());
      };
      std::int32_t equals = 0;
      for (std::int32_t i = first_out_[v]; i < first_out_[v + 1]; ++i) equals += nearer(i);
      std::int32_t skip = spread % equals, port = first_out_[v];
      while (!nearer(port) || skip-- > 0) ++port;
      port_[v * columns + static_cast<std::size_t>(d)] = static_cast<std::uint16_t>(port - first_out_[v]);
    }
  });
  Diagnostics problems;
  for (std::size_t d = 0; d < columns && problems.size() < 10; ++d)
    if (unreached[d] >= 0) problems.add(at, fmt::format("there is no path from rank {} to rank {}", unreached[d], d));
  problems.check();
}

Time Topology::latency(Rank s, Rank d) const {
  Time sum;
  for_each_link(s, d, [&](std::int32_t link) { sum += links_[static_cast<std::size_t>(link)].latency; });
  return sum;
}

Bandwidth Topology::bandwidth(Rank s, Rank d) const {
  Bandwidth least = std::numeric_limits<Bandwidth>::infinity();
  for_each_link(s, d, [&](std::int32_t link) { least = std::min(least, links_[static_cast<std::size_t>(link)].bandwidth); });
  return least;
}

}  // namespace epsim
