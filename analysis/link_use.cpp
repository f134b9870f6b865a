#include "analysis/link_use.h"

#include <algorithm>

#include "base/check.h"

namespace epsim {
namespace {

/// The part of [begin, end] in each of the bins [first, first + parts.size()); `at` and `until` are counted in bins.
struct Spread {
  std::size_t first = 0;
  std::vector<double> parts;

  void set(double at, double until, std::size_t bins) {
    at = std::clamp(at, 0.0, static_cast<double>(bins));
    until = std::clamp(until, at, static_cast<double>(bins));
    first = std::min(static_cast<std::size_t>(at), bins - 1);
    parts.clear();
    if (until <= at) {
      parts.push_back(1);  // bytes that take no time
      return;
    }
    for (std::size_t b = first; b < bins && static_cast<double>(b) < until; ++b)
      parts.push_back((std::min(until, static_cast<double>(b + 1)) - std::max(at, static_cast<double>(b))) / (until - at));
  }
};

}  // namespace

LinkUse link_use(const Timeline& timeline, const Schedule& schedule, Stage stage, const Topology& topology, int bins) {
  ensure(bins >= 1, "time has at least one bin");
  const auto n = static_cast<std::size_t>(bins);
  LinkUse use;
  use.bytes.resize(topology.links().size());
  use.bytes_over_time = {static_cast<std::int64_t>(use.bytes.size()), bins};
  for (const Link& link : topology.links()) use.bandwidth.push_back(link.bandwidth);

  std::vector<const Timeline::FlowRecord*> flows;
  for (const Timeline::FlowRecord& f : timeline.flows)
    if (schedule.phases[static_cast<std::size_t>(f.phase)].stage == stage) flows.push_back(&f);
  if (flows.empty()) return use;
  use.begin_s = flows.front()->begin.seconds();
  for (const Timeline::FlowRecord* f : flows) use.begin_s = std::min(use.begin_s, f->begin.seconds()), use.end_s = std::max(use.end_s, f->end_s);

  const double bins_per_s = use.time_s() > 0 ? static_cast<double>(bins) / use.time_s() : 0;
  Spread spread;
  for (const Timeline::FlowRecord* f : flows) {
    const double left_s = f->end_s - topology.latency(f->source, f->destination).seconds();
    spread.set((f->begin.seconds() - use.begin_s) * bins_per_s, (left_s - use.begin_s) * bins_per_s, n);
    topology.for_each_share(f->source, f->destination, [&](std::int32_t link, double share) {
      const double bytes = static_cast<double>(f->bytes) * share;
      use.bytes[static_cast<std::size_t>(link)] += bytes;
      double* const over_time = use.bytes_over_time.row(link).data() + spread.first;
      for (std::size_t b = 0; b < spread.parts.size(); ++b) over_time[b] += bytes * spread.parts[b];
    });
  }
  return use;
}

double LinkUse::utilisation(std::size_t link) const { return time_s() > 0 ? bytes[link] / bandwidth[link] / time_s() : 0; }

std::vector<double> LinkUse::utilisation_over_time(std::size_t link) const {
  const auto row = bytes_over_time.row(static_cast<std::int64_t>(link));
  std::vector<double> shares(row.size());
  const double bin_s = time_s() / static_cast<double>(row.size());
  if (bin_s > 0)
    for (std::size_t b = 0; b < row.size(); ++b) shares[b] = row[b] / bandwidth[link] / bin_s;
  return shares;
}

std::vector<TierUse> tier_use(const LinkUse& use, const Topology& topology) {
  std::vector<TierUse> tiers;
  std::vector<double> bandwidth;  // of each tier
  for (std::size_t l = 0; l < use.bytes.size(); ++l) {
    const std::string& name = topology.links()[l].tier;
    auto tier = std::find_if(tiers.begin(), tiers.end(), [&](const TierUse& t) { return t.tier == name; });
    const std::vector<double> shares = use.utilisation_over_time(l);
    if (tier == tiers.end()) {
      tiers.push_back({name, std::vector<double>(shares.size()), std::vector<double>(shares.size()), 0});
      bandwidth.push_back(0);
      tier = std::prev(tiers.end());
    }
    bandwidth[static_cast<std::size_t>(tier - tiers.begin())] += use.bandwidth[l];
    for (std::size_t b = 0; b < shares.size(); ++b) tier->mean[b] += shares[b] * use.bandwidth[l], tier->most[b] = std::max(tier->most[b], shares[b]);
    tier->mean_in_all += use.utilisation(l) * use.bandwidth[l];
  }
  for (std::size_t t = 0; t < tiers.size(); ++t) {
    for (double& share : tiers[t].mean) share /= bandwidth[t];
    tiers[t].mean_in_all /= bandwidth[t];
  }
  return tiers;
}

}  // namespace epsim
