#include "analysis/traffic.h"

#include <algorithm>
#include <numeric>

namespace epsim {

Traffic traffic(const Schedule& schedule, Stage stage, const Topology& topology) {
  const int ranks = schedule.ranks;
  Traffic t;
  t.rank_bytes = {ranks, ranks};
  t.node_bytes = {topology.nodes(), topology.nodes()};
  t.link_bytes.resize(topology.links().size());
  // Latencies add up along transfers that wait for each other, not over those that go side by side.
  std::vector<std::int64_t> chain_ps(schedule.phases.size());
  for (std::size_t p = 0; p < schedule.phases.size(); ++p) {
    const Phase& phase = schedule.phases[p];
    for (const auto& list : {phase.after, phase.after_sent})
      for (const int before : list) chain_ps[p] = std::max(chain_ps[p], chain_ps[static_cast<std::size_t>(before)]);
    if (phase.kind != Phase::Kind::transfer || phase.stage != stage) continue;
    std::int64_t latency_ps = 0;
    for (const auto& [s, d, rows] : phase.rows.all()) {
      const std::int64_t bytes = rows * phase.row_bytes;
      t.rank_bytes(s, d) += bytes;
      t.node_bytes(topology.node_of(s), topology.node_of(d)) += bytes;
      topology.for_each_share(s, d, [&](std::int32_t link, double share) { t.link_bytes[link] += static_cast<double>(bytes) * share; });
      latency_ps = std::max(latency_ps, topology.latency(s, d).ps);
    }
    chain_ps[p] += latency_ps;
    t.latency_s = std::max(t.latency_s, Time{chain_ps[p]}.seconds());
  }
  return t;
}

std::int64_t Traffic::bytes() const { return std::accumulate(rank_bytes.cells.begin(), rank_bytes.cells.end(), std::int64_t{0}); }

std::int64_t Traffic::cross_node_bytes() const {
  std::int64_t sum = std::accumulate(node_bytes.cells.begin(), node_bytes.cells.end(), std::int64_t{0});
  for (std::int64_t n = 0; n < node_bytes.rows; ++n) sum -= node_bytes(n, n);
  return sum;
}

BusiestLink busiest_link(const std::vector<double>& bytes, const Topology& topology) {
  const auto links = topology.links();
  std::size_t busiest = 0;
  const auto busy = [&](std::size_t l) { return bytes[l] / links[l].bandwidth; };
  for (std::size_t l = 1; l < links.size(); ++l)
    if (busy(l) > busy(busiest)) busiest = l;
  BusiestLink found;
  if (links.empty() || bytes[busiest] == 0) return found;
  double tier_busy = 0;
  int tier_links = 0;
  for (std::size_t l = 0; l < links.size(); ++l)
    if (links[l].tier == links[busiest].tier) tier_busy += busy(l), ++tier_links;
  return {links[busiest].name, bytes[busiest], busy(busiest), busy(busiest) * tier_links / tier_busy, static_cast<std::int64_t>(bottleneck_links(bytes, topology).size())};
}

std::vector<std::int32_t> bottleneck_links(const std::vector<double>& bytes, const Topology& topology) {
  const auto links = topology.links();
  double longest = 0;
  for (std::size_t l = 0; l < links.size(); ++l) longest = std::max(longest, bytes[l] / links[l].bandwidth);
  std::vector<std::int32_t> found;
  for (std::size_t l = 0; l < links.size(); ++l)
    if (bytes[l] > 0 && bytes[l] / links[l].bandwidth >= 0.99 * longest) found.push_back(static_cast<std::int32_t>(l));
  return found;
}

double transfer_span(const LayerRun& run, Stage stage) {
  Time begin = Time::never(), end{0};
  for (const Timeline::Slice& s : run.timeline.slices) {
    const Phase& phase = run.schedule.phases[s.phase];
    if (phase.kind != Phase::Kind::transfer || phase.stage != stage) continue;
    begin = std::min(begin, s.begin);
    end = std::max(end, s.end);
  }
  return end < begin ? 0 : (end - begin).seconds();
}

}  // namespace epsim
