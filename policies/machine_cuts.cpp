#include "policies/machine_cuts.h"

#include <algorithm>
#include <limits>
#include <map>
#include <queue>

#include "base/parallel.h"
#include "topology/bisection.h"

namespace epsim {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kMostWays = 512;          // ranks between each two of which ways are found: they grow as the square
constexpr std::size_t kApproaches = 6;  // latencies that are looked at
constexpr std::int64_t kNearer = 64;    // homes that a rank can have nearer than one of them, in the mean

/// Which links some path between two ranks goes over, or might where there are many ranks: [links].
std::vector<bool> on_paths(const Topology& topology) {
  const auto links = topology.links().size();
  if (topology.ranks() > kMostWays) return std::vector<bool>(links, true);
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

/// Ways between homes and serving ranks, [home][serving].
struct Ways {
  Matrix<double> latency;     ///< seconds
  Matrix<double> at_rank;     ///< of these, what begins when a row is put on the serving rank's own link: the last hop's there, all of it back
  Matrix<std::int32_t> door;  ///< the link of the serving rank that they end or begin with; -1: any of its links
  explicit Ways(std::int64_t ranks) : latency(ranks, ranks), at_rank(ranks, ranks), door(ranks, ranks) { std::ranges::fill(door.cells, -1); }
};

/// The only link of a rank on the paths from `s` to `d`, at their end or at their beginning; -1 where there are several.
std::int32_t door(const Topology& topology, Rank s, Rank d, bool at_end) {
  std::int32_t found = -1;
  int count = 0;
  topology.for_each_link(s, d, [&](std::int32_t l) {
    const Link& link = topology.links()[static_cast<std::size_t>(l)];
    if (topology.vertices()[static_cast<std::size_t>(at_end ? link.to : link.from)].rank == (at_end ? d : s)) found = l, ++count;
  });
  return count == 1 ? found : -1;
}

/// The ways of rows, and of results. Latencies count hop by hop the shorter of both directions, as results may come back along the way of the rows or along the journey from the serving rank to home; where these do not begin with the same
/// link, their door is not known.
std::pair<Ways, Ways> find_ways(const Topology& topology, const Exchange& exchange, const MachineCuts& cuts) {
  const std::int64_t ranks = topology.ranks();
  Ways there(ranks);
  const auto any = [&](Rank s, Rank d) {
    const double near = std::max(cuts.latency_out[s], cuts.latency_in[d]);
    return topology.node_of(s) == topology.node_of(d) ? near : std::max({near, cuts.far_out[s], cuts.far_in[d]});
  };
  const Journey journey = exchange.journey ? exchange.journey(topology) : Journey{};
  Ways back(ranks);
  parallel_for(ranks, [&](std::int64_t i) {
    const Rank s(i);
    std::vector<bool> known(static_cast<std::size_t>(ranks));
    known[static_cast<std::size_t>(i)] = true;
    std::vector<Rank> open;
    std::vector<Journey::Hop> hops;
    for (const Rank d : ids<Rank>(ranks)) {
      if (s == d) continue;
      if (!exchange.journey) {
        there.latency(i, d.value) = there.at_rank(i, d.value) = any(s, d);
        continue;
      }
      for (Rank at = d; !known[static_cast<std::size_t>(at)]; at = journey.last(s, at).from) open.push_back(at);
      for (; !open.empty(); open.pop_back()) {
        const Rank at = open.back(), from = journey.last(s, at).from;
        there.at_rank(i, at.value) = std::min(topology.latency(from, at), topology.latency(at, from)).seconds();
        there.latency(i, at.value) = there.latency(i, from.value) + there.at_rank(i, at.value);
        known[static_cast<std::size_t>(at)] = true;
      }
      const Rank last = journey.last(s, d).from;
      there.door(i, d.value) = door(topology, last, d, true);
      journey.find(d, s, hops);
      const std::int32_t along = door(topology, d, last, false), own = hops.front().to == last ? along : door(topology, d, hops.front().to, false);
      if (along == own) back.door(i, d.value) = along;
    }
  });
  for (std::int64_t h = 0; h < ranks; ++h)
    for (std::int64_t s = 0; s < ranks; ++s) back.latency(h, s) = back.at_rank(h, s) = std::min(there.latency(h, s), there.latency(s, h));
  return {std::move(there), std::move(back)};
}

/// What rows through one link have in common: none is put on it before, and none has come sooner behind it.
struct Door {
  double before = kInfinity, behind = kInfinity;
  void add(double latency, double at_rank) { before = std::min(before, latency - at_rank), behind = std::min(behind, at_rank); }
};

/// Approaches of some latencies, the least and the longest among them. `rates`: of all links of ranks.
std::vector<Approach> approaches(const Topology& topology, const Ways& ways, const std::vector<double>& rates) {
  const std::int64_t ranks = ways.latency.rows;
  std::vector<double> latencies;
  for (std::int64_t h = 0; h < ranks; ++h)
    for (std::int64_t s = 0; s < ranks; ++s)
      if (h != s) latencies.push_back(ways.latency(h, s));
  std::ranges::sort(latencies);
  latencies.erase(std::unique(latencies.begin(), latencies.end()), latencies.end());
  std::vector<Approach> all;
  const std::size_t count = std::min(latencies.size(), kApproaches);
  for (std::size_t i = 0; i < count; ++i) {
    const double least = latencies[count == 1 ? 0 : i * (latencies.size() - 1) / (count - 1)];
    Approach a{kInfinity, {}, {}};
    std::int64_t homes = 0;
    for (std::int64_t s = 0; s < ranks; ++s) {
      std::vector<std::int32_t>& nearer = a.nearer.emplace_back();
      std::map<std::int32_t, Door> doors;
      for (std::int64_t h = 0; h < ranks; ++h)
        if (h == s || ways.latency(h, s) < least)
          nearer.push_back(static_cast<std::int32_t>(h));
        else
          doors[ways.door(h, s)].add(ways.latency(h, s), ways.at_rank(h, s));
      double rate = 0;
      for (const auto& [link, door] : doors) {
        rate += link >= 0 ? topology.links()[static_cast<std::size_t>(link)].bandwidth : kInfinity;
        a.latency = std::min(a.latency, door.before + door.behind);
      }
      a.rates.push_back(std::min(rate, rates[static_cast<std::size_t>(s)]));
      homes += static_cast<std::int64_t>(nearer.size());
    }
    if (homes <= kNearer * ranks) all.push_back(std::move(a));
  }
  return all;
}

/// Rows enter a node where their way to a rank has its last hop from another node; results leave it there.
std::optional<Crossing> crossing(const Topology& topology, const Exchange& exchange, const Ways& there, const Ways& back) {
  if (exchange.dispatch_row_for != RowFor::node || !exchange.journey || topology.nodes() < 2) return {};
  const Journey journey = exchange.journey(topology);
  Crossing c;
  c.straight_there_s = c.straight_back_s = c.relayed_there_s = c.relayed_back_s = kInfinity;
  c.homes.resize(static_cast<std::size_t>(topology.ranks()));
  const auto rate_of = [&](std::vector<std::int32_t> doors) {
    std::ranges::sort(doors);
    doors.erase(std::unique(doors.begin(), doors.end()), doors.end());
    double sum = 0;
    for (const std::int32_t l : doors) sum += l >= 0 ? topology.links()[static_cast<std::size_t>(l)].bandwidth : kInfinity;
    return sum;
  };
  for (const Rank q : ids<Rank>(topology.ranks())) {
    c.node.push_back(topology.node_of(q).value);
    std::vector<std::int32_t> in, out, relayed_in, relayed_out;
    for (const Rank h : ids<Rank>(topology.ranks())) {
      if (topology.node_of(h) == topology.node_of(q)) continue;
      const bool relayed = topology.node_of(journey.last(h, q).from) == topology.node_of(q);
      double &there_s = relayed ? c.relayed_there_s : c.straight_there_s, &back_s = relayed ? c.relayed_back_s : c.straight_back_s;
      there_s = std::min(there_s, there.latency(h.value, q.value)), back_s = std::min(back_s, back.latency(h.value, q.value));
      (relayed ? relayed_in : in).push_back(there.door(h.value, q.value));
      (relayed ? relayed_out : out).push_back(door(topology, q, journey.last(h, q).from, false));
      if (!relayed) c.homes[static_cast<std::size_t>(q)].push_back(h.value);
    }
    c.in.push_back(rate_of(std::move(in))), c.out.push_back(rate_of(std::move(out)));
    c.relayed_in.push_back(rate_of(std::move(relayed_in))), c.relayed_out.push_back(rate_of(std::move(relayed_out)));
  }
  for (double* const seconds : {&c.straight_there_s, &c.straight_back_s, &c.relayed_there_s, &c.relayed_back_s})
    if (*seconds == kInfinity) *seconds = 0;
  return c;
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
    const auto [there, back] = find_ways(topology, exchange, cuts);
    cuts.there = approaches(topology, there, cuts.rank_in), cuts.back = approaches(topology, back, cuts.rank_out);
    cuts.crossing = crossing(topology, exchange, there, back);
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
