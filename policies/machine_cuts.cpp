#include "policies/machine_cuts.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <queue>

#include "base/parallel.h"
#include "topology/bisection.h"

namespace epsim {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kMostWays = 1024;         // ranks between each two of which ways are found: they grow as the square
constexpr std::size_t kApproaches = 6;  // latencies that are looked at
constexpr std::int64_t kNearer = 64;    // homes that a rank can have nearer than one of them, in the mean

/// Which links some path between two ranks goes over: [links].
std::vector<bool> on_paths(const Topology& topology) {
  const auto links = topology.links().size();
  std::vector<std::vector<bool>> of(static_cast<std::size_t>(topology.ranks()));
  parallel_for(topology.ranks(), [&](std::int64_t s) {
    of[static_cast<std::size_t>(s)].resize(links);
    for (const Rank d : ids<Rank>(topology.ranks())) topology.for_each_link(Rank(s), d, [&](std::int32_t l) { of[static_cast<std::size_t>(s)][static_cast<std::size_t>(l)] = true; });
  });
  std::vector<bool> used(links);
  for (const std::vector<bool>& from : of)
    for (std::size_t l = 0; l < links; ++l) used[l] = used[l] || from[l];
  return used;
}

/// The least latency of any way over links between each rank and a rank of another node: into it or out of it.
std::vector<double> far_latencies(const Topology& topology, bool into) {
  // Shortest ways from all ranks at once; a vertex keeps the two that are shortest among ways from different nodes.
  struct Way {
    double seconds;
    std::int32_t vertex, node;
    bool operator>(const Way& o) const { return seconds > o.seconds; }
  };
  const std::span<const Vertex> vertices = topology.vertices();
  std::vector<std::vector<std::int32_t>> links_at(vertices.size());
  for (std::size_t l = 0; l < topology.links().size(); ++l) links_at[static_cast<std::size_t>(into ? topology.links()[l].from : topology.links()[l].to)].push_back(static_cast<std::int32_t>(l));
  std::vector<std::vector<Way>> found(vertices.size());
  std::priority_queue<Way, std::vector<Way>, std::greater<>> open;
  for (std::size_t v = 0; v < vertices.size(); ++v)
    if (vertices[v].rank.valid()) open.push({0, static_cast<std::int32_t>(v), topology.node_of(vertices[v].rank).value});
  while (!open.empty()) {
    const Way way = open.top();
    open.pop();
    std::vector<Way>& here = found[static_cast<std::size_t>(way.vertex)];
    if (here.size() == 2 || (here.size() == 1 && here.front().node == way.node)) continue;
    here.push_back(way);
    for (const std::int32_t l : links_at[static_cast<std::size_t>(way.vertex)]) {
      const Link& link = topology.links()[static_cast<std::size_t>(l)];
      open.push({way.seconds + link.latency.seconds(), into ? link.to : link.from, way.node});
    }
  }
  std::vector<double> seconds(static_cast<std::size_t>(topology.ranks()), kInfinity);
  for (std::size_t v = 0; v < vertices.size(); ++v)
    if (vertices[v].rank.valid())
      for (const Way& way : found[v])
        if (way.node != topology.node_of(vertices[v].rank).value) seconds[static_cast<std::size_t>(vertices[v].rank)] = way.seconds;
  return seconds;
}

/// The latency of the way between each two ranks, hop by hop the shorter of both directions: results may come back along it.
Matrix<double> ways(const Topology& topology, const Exchange& exchange, const MachineCuts& cuts) {
  const std::int64_t ranks = topology.ranks();
  Matrix<double> there(ranks, ranks);
  const auto any = [&](Rank s, Rank d) {
    const double near = std::max(cuts.latency_out[s], cuts.latency_in[d]);
    return topology.node_of(s) == topology.node_of(d) ? near : std::max({near, cuts.far_out[s], cuts.far_in[d]});
  };
  const Journey journey = exchange.journey ? exchange.journey(topology) : Journey{};
  parallel_for(ranks, [&](std::int64_t i) {
    const Rank s(i);
    std::vector<bool> known(static_cast<std::size_t>(ranks));
    known[static_cast<std::size_t>(i)] = true;
    std::vector<Rank> open;
    for (const Rank d : ids<Rank>(ranks)) {
      if (!exchange.journey) {
        if (s != d) there(i, d.value) = any(s, d);
        continue;
      }
      for (Rank at = d; !known[static_cast<std::size_t>(at)]; at = journey.last(s, at).from) open.push_back(at);
      for (; !open.empty(); open.pop_back()) {
        const Rank at = open.back(), from = journey.last(s, at).from;
        there(i, at.value) = there(i, from.value) + std::min(topology.latency(from, at), topology.latency(at, from)).seconds();
        known[static_cast<std::size_t>(at)] = true;
      }
    }
  });
  return there;
}

/// Approaches of some latencies of `ways` [home][serving], the least and the longest among them.
std::vector<Approach> approaches(const Matrix<double>& ways) {
  std::vector<double> latencies;
  for (std::int64_t h = 0; h < ways.rows; ++h)
    for (std::int64_t s = 0; s < ways.columns; ++s)
      if (h != s) latencies.push_back(ways(h, s));
  std::ranges::sort(latencies);
  latencies.erase(std::unique(latencies.begin(), latencies.end()), latencies.end());
  std::vector<Approach> all;
  const std::size_t count = std::min(latencies.size(), kApproaches);
  for (std::size_t i = 0; i < count; ++i) {
    Approach a;
    a.latency = latencies[count == 1 ? 0 : i * (latencies.size() - 1) / (count - 1)];
    std::int64_t homes = 0;
    for (std::int64_t s = 0; s < ways.columns; ++s) {
      std::vector<std::int32_t>& nearer = a.nearer.emplace_back();
      for (std::int64_t h = 0; h < ways.rows; ++h)
        if (h == s || ways(h, s) < a.latency) nearer.push_back(static_cast<std::int32_t>(h));
      homes += static_cast<std::int64_t>(nearer.size());
    }
    if (homes <= kNearer * ways.columns) all.push_back(std::move(a));
  }
  return all;
}

}  // namespace

MachineCuts cuts_of(const Topology& topology, const Exchange& exchange) {
  const auto ranks = static_cast<std::size_t>(topology.ranks()), nodes = static_cast<std::size_t>(topology.nodes());
  MachineCuts cuts;
  cuts.rank_out.assign(ranks, 0), cuts.rank_in.assign(ranks, 0);
  // The first and the last link of any path; where a link joins two ranks, it is both.
  std::vector<double> first(ranks, kInfinity), last(ranks, kInfinity);
  double any_first = kInfinity, any_last = kInfinity;
  const auto rank_at = [&](std::int32_t v) { return topology.vertices()[static_cast<std::size_t>(v)].rank; };
  const std::vector<bool> used = on_paths(topology);
  for (std::size_t l = 0; l < used.size(); ++l) {
    if (!used[l]) continue;
    const Link& link = topology.links()[l];
    const Rank from = rank_at(link.from), to = rank_at(link.to);
    if (from.valid()) cuts.rank_out[static_cast<std::size_t>(from)] += link.bandwidth;
    if (to.valid()) cuts.rank_in[static_cast<std::size_t>(to)] += link.bandwidth;
    if (from.valid()) any_first = std::min(any_first, link.latency.seconds());
    if (to.valid()) any_last = std::min(any_last, link.latency.seconds());
  }
  for (std::vector<double>* const rates : {&cuts.rank_out, &cuts.rank_in}) std::ranges::replace(*rates, 0.0, kInfinity);
  for (const Link& link : topology.links()) {
    const Rank from = rank_at(link.from), to = rank_at(link.to);
    if (from.valid()) first[static_cast<std::size_t>(from)] = std::min(first[static_cast<std::size_t>(from)], link.latency.seconds() + (to.valid() ? 0 : any_last));
    if (to.valid()) last[static_cast<std::size_t>(to)] = std::min(last[static_cast<std::size_t>(to)], link.latency.seconds() + (from.valid() ? 0 : any_first));
  }
  cuts.latency_out = std::move(first), cuts.latency_in = std::move(last);
  cuts.far_out = far_latencies(topology, false), cuts.far_in = far_latencies(topology, true);
  if (topology.ranks() <= kMostWays) {
    const Matrix<double> there = ways(topology, exchange, cuts);
    Matrix<double> back = there;
    for (std::int64_t h = 0; h < back.rows; ++h)
      for (std::int64_t s = 0; s < back.columns; ++s) back(h, s) = std::min(there(h, s), there(s, h));
    cuts.there = approaches(there), cuts.back = approaches(back);
  }
  cuts.node_out.assign(nodes, kInfinity), cuts.node_in.assign(nodes, kInfinity);
  if (nodes < 2) return cuts;
  parallel_for(static_cast<std::int64_t>(nodes), [&](std::int64_t n) {
    std::vector<bool> inside(ranks);
    for (const Rank r : topology.ranks_of(Node(n))) inside[static_cast<std::size_t>(r)] = true;
    cuts.node_out[static_cast<std::size_t>(n)] = cut_bandwidth(topology, inside);
    inside.flip();
    cuts.node_in[static_cast<std::size_t>(n)] = cut_bandwidth(topology, inside);
  });
  return cuts;
}

}  // namespace epsim
