#pragma once
#include <algorithm>
#include <limits>
#include <vector>

#include "topology/topology.h"

namespace epsim::testing {

struct TimedFlow {
  int source, destination;
  double bytes, begin;
};

/// When each flow arrives under max-min fair sharing: slow and obvious. At every begin and end all rates are found anew: the rates of all flows rise together until a link is full, its flows stay
/// there, the others rise on. In long double, without any tolerance.
inline std::vector<double> progressive_filling(const Topology& topology, const std::vector<TimedFlow>& flows) {
  using Real = long double;
  const Real never = std::numeric_limits<Real>::infinity();
  std::vector<std::vector<int>> paths(flows.size());
  for (std::size_t f = 0; f < flows.size(); ++f) topology.for_each_link(Rank(flows[f].source), Rank(flows[f].destination), [&](int l) { paths[f].push_back(l); });
  std::vector<Real> left(flows.size());
  std::vector<double> arrival(flows.size(), -1);
  std::vector<bool> begun(flows.size()), ended(flows.size());
  for (std::size_t f = 0; f < flows.size(); ++f) left[f] = flows[f].bytes;

  Real now = 0;
  while (true) {
    std::vector<Real> rate(flows.size(), 0), room;
    for (const Link& l : topology.links()) room.push_back(l.bandwidth);
    std::vector<bool> rising(flows.size());
    for (std::size_t f = 0; f < flows.size(); ++f) rising[f] = begun[f] && !ended[f];
    while (std::find(rising.begin(), rising.end(), true) != rising.end()) {
      std::vector<int> users(room.size(), 0);
      for (std::size_t f = 0; f < flows.size(); ++f)
        if (rising[f])
          for (const int l : paths[f]) ++users[l];
      Real rise = never;
      for (std::size_t l = 0; l < room.size(); ++l)
        if (users[l]) rise = std::min(rise, room[l] / users[l]);
      std::vector<bool> full(room.size());
      for (std::size_t l = 0; l < room.size(); ++l)
        if (users[l] && room[l] / users[l] == rise) full[l] = true;
      for (std::size_t l = 0; l < room.size(); ++l) room[l] = full[l] ? 0 : room[l] - rise * users[l];
      for (std::size_t f = 0; f < flows.size(); ++f) {
        if (!rising[f]) continue;
        rate[f] += rise;
        for (const int l : paths[f])
          if (full[l]) rising[f] = false;
      }
    }

    Real next = never;
    for (std::size_t f = 0; f < flows.size(); ++f) {
      if (!begun[f]) next = std::min(next, static_cast<Real>(flows[f].begin));
      if (begun[f] && !ended[f]) next = std::min(next, now + left[f] / rate[f]);
    }
    if (next == never) return arrival;
    for (std::size_t f = 0; f < flows.size(); ++f) {
      if (begun[f] && !ended[f]) {
        const bool ends = now + left[f] / rate[f] <= next;
        left[f] -= rate[f] * (next - now);
        if (ends || left[f] <= 0) {
          ended[f] = true;
          arrival[f] = static_cast<double>(next + static_cast<Real>(topology.latency(Rank(flows[f].source), Rank(flows[f].destination)).seconds()));
        }
      }
      if (!begun[f] && static_cast<Real>(flows[f].begin) <= next) begun[f] = true;
    }
    now = next;
  }
}

}  // namespace epsim::testing
