#pragma once
#include <algorithm>
#include <functional>
#include <limits>
#include <vector>

#include "topology/topology.h"

namespace epsim::testing {

struct TimedFlow {
  int source, destination;
  double bytes, begin;
};

/// When each flow arrives under max-min fair sharing: slow and obvious. At every begin and end all rates are found anew: the rates of all flows rise together, each in proportion to its weight, until a
/// link is full; its flows stay there, the others rise on. In long double, without any tolerance. With `by_latency` a flow begins after its path's latency and weighs one over it.
/// A link into a rank gives the share incast(flows under way on it).
inline std::vector<double> progressive_filling(const Topology& topology, const std::vector<TimedFlow>& flows, bool by_latency = false, const std::function<double(int)>& incast = {}) {
  using Real = long double;
  const Real never = std::numeric_limits<Real>::infinity();
  struct Hop {
    int link;
    Real share;
  };
  std::vector<std::vector<Hop>> paths(flows.size());
  std::vector<Real> left(flows.size()), latency(flows.size()), begin(flows.size()), weight(flows.size(), 1);
  for (std::size_t f = 0; f < flows.size(); ++f) {
    topology.for_each_share(Rank(flows[f].source), Rank(flows[f].destination), [&](int l, double share) { paths[f].push_back({l, share}); });
    left[f] = flows[f].bytes;
    begin[f] = flows[f].begin;
    latency[f] = topology.latency(Rank(flows[f].source), Rank(flows[f].destination)).seconds();
    if (!by_latency) continue;
    begin[f] += latency[f];
    weight[f] = 1 / latency[f];
    latency[f] = 0;
  }
  std::vector<double> arrival(flows.size(), -1);
  std::vector<bool> begun(flows.size()), ended(flows.size());

  Real now = 0;
  while (true) {
    std::vector<Real> rate(flows.size(), 0), room;
    for (const Link& l : topology.links()) room.push_back(l.bandwidth);
    std::vector<bool> rising(flows.size());
    for (std::size_t f = 0; f < flows.size(); ++f) rising[f] = begun[f] && !ended[f];
    for (std::size_t l = 0; incast && l < room.size(); ++l) {
      if (!topology.vertices()[topology.links()[l].to].rank.valid()) continue;
      int live = 0;
      for (std::size_t f = 0; f < flows.size(); ++f) live += rising[f] && std::any_of(paths[f].begin(), paths[f].end(), [&](const Hop& h) { return h.link == static_cast<int>(l); });
      if (live > 0) room[l] *= incast(live);
    }
    while (std::find(rising.begin(), rising.end(), true) != rising.end()) {
      std::vector<Real> users(room.size(), 0);
      for (std::size_t f = 0; f < flows.size(); ++f)
        if (rising[f])
          for (const Hop& h : paths[f]) users[h.link] += weight[f] * h.share;
      Real rise = never;
      for (std::size_t l = 0; l < room.size(); ++l)
        if (users[l] > 0) rise = std::min(rise, room[l] / users[l]);
      std::vector<bool> full(room.size());
      for (std::size_t l = 0; l < room.size(); ++l)
        if (users[l] > 0 && room[l] / users[l] == rise) full[l] = true;
      for (std::size_t l = 0; l < room.size(); ++l) room[l] = full[l] ? 0 : room[l] - rise * users[l];
      for (std::size_t f = 0; f < flows.size(); ++f) {
        if (!rising[f]) continue;
        rate[f] += rise * weight[f];
        for (const Hop& h : paths[f])
          if (full[h.link]) rising[f] = false;
      }
    }

    Real next = never;
    for (std::size_t f = 0; f < flows.size(); ++f) {
      if (!begun[f]) next = std::min(next, begin[f]);
      if (begun[f] && !ended[f]) next = std::min(next, now + left[f] / rate[f]);
    }
    if (next == never) return arrival;
    for (std::size_t f = 0; f < flows.size(); ++f) {
      if (begun[f] && !ended[f]) {
        const bool ends = now + left[f] / rate[f] <= next;
        left[f] -= rate[f] * (next - now);
        if (ends || left[f] <= 0) {
          ended[f] = true;
          arrival[f] = static_cast<double>(next + latency[f]);
        }
      }
      if (!begun[f] && begin[f] <= next) begun[f] = true;
    }
    now = next;
  }
}

}  // namespace epsim::testing
