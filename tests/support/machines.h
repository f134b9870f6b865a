#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/rng.h"
#include "topology/topology.h"

namespace epsim::testing {

/// Builds small machines link by link, for tests that want their own numbers on every link.
class MachineBuilder {
 public:
  /// Adds a rank; ranks are numbered in the order of this call.
  int rank(int node) {
    vertices_.push_back({"rank " + std::to_string(ranks_), Rank(ranks_), Node(node)});
    ++ranks_;
    return static_cast<int>(vertices_.size()) - 1;
  }
  int a_switch() {
    vertices_.push_back({"switch " + std::to_string(vertices_.size()), Rank(), Node()});
    return static_cast<int>(vertices_.size()) - 1;
  }
  void link(int from, int to, Bandwidth bandwidth, Time latency = {}) {
    links_.push_back({vertices_[from].name + " -> " + vertices_[to].name + " #" + std::to_string(links_.size()), "test", from, to, bandwidth, latency});
  }
  /// Both directions.
  void cable(int a, int b, Bandwidth bandwidth, Time latency = {}) {
    link(a, b, bandwidth, latency);
    link(b, a, bandwidth, latency);
  }
  Topology build(PathRule rule = {}) const { return Topology(vertices_, links_, device, {}, rule); }

  Device device{};

 private:
  std::vector<Vertex> vertices_;
  std::vector<Link> links_;
  int ranks_ = 0;
};

/// Ranks around one switch; every rank a node of its own. A path is two links.
inline Topology star(int ranks, Bandwidth port, Time latency = {}) {
  MachineBuilder b;
  for (int r = 0; r < ranks; ++r) b.rank(r);
  const int hub = b.a_switch();
  for (int r = 0; r < ranks; ++r) b.cable(r, hub, port, latency);
  return b.build();
}

/// Nodes of ranks around a node switch, node switches around one core. A path is two links inside a node, four across.
inline Topology tree(int nodes, int ranks_per_node, Bandwidth port, Bandwidth uplink, Time latency = {}) {
  MachineBuilder b;
  for (int r = 0; r < nodes * ranks_per_node; ++r) b.rank(r / ranks_per_node);
  const int core = b.a_switch();
  for (int n = 0; n < nodes; ++n) {
    const int hub = b.a_switch();
    for (int i = 0; i < ranks_per_node; ++i) b.cable(n * ranks_per_node + i, hub, port, latency);
    b.cable(hub, core, uplink, latency);
  }
  return b.build();
}

/// Leaves of hosts, every leaf linked to every spine: the shape of a fat tree with D-mod-k paths. All links equal.
inline Topology fat_tree(int leaves, int hosts, int spines, Bandwidth port, Time latency = {}) {
  MachineBuilder b;
  for (int r = 0; r < leaves * hosts; ++r) b.rank(r / hosts);
  std::vector<int> leaf, spine;
  for (int s = 0; s < spines; ++s) spine.push_back(b.a_switch());
  for (int l = 0; l < leaves; ++l) {
    leaf.push_back(b.a_switch());
    for (int h = 0; h < hosts; ++h) b.cable(l * hosts + h, leaf.back(), port, latency);
    for (const int s : spine) b.cable(leaf.back(), s, port, latency);
  }
  return b.build();
}

/// A number from `low` to `high`, even on a logarithmic scale.
inline double log_uniform(Rng& rng, double low, double high) { return low * std::exp(rng.uniform() * std::log(high / low)); }

/// A machine of 2 to 12 ranks of any of these shapes, with equal links or every link its own, with or without latency.
inline Topology random_machine(Rng& rng, PathRule rule = {}) {
  const int shape = static_cast<int>(rng.below(3)), nodes = 1 + static_cast<int>(rng.below(4)), each = nodes == 1 ? 2 + static_cast<int>(rng.below(5)) : 1 + static_cast<int>(rng.below(3));
  const int spines = shape == 2 ? 1 + static_cast<int>(rng.below(3)) : 1;
  const bool equal = rng.below(2) == 0, delay = rng.below(2) == 0;
  const auto rate = [&] { return equal ? 1e9 : log_uniform(rng, 1e8, 1e11); };
  const auto latency = [&] { return delay ? Time{static_cast<std::int64_t>(rng.below(2'000'000))} : Time{}; };
  MachineBuilder b;
  for (int r = 0; r < nodes * each; ++r) b.rank(r / each);
  if (shape == 0) {
    const int hub = b.a_switch();
    for (int r = 0; r < nodes * each; ++r) b.link(r, hub, rate(), latency()), b.link(hub, r, rate(), latency());
    return b.build(rule);
  }
  std::vector<int> top;
  for (int s = 0; s < spines; ++s) top.push_back(b.a_switch());
  for (int n = 0; n < nodes; ++n) {
    const int hub = b.a_switch();
    for (int i = 0; i < each; ++i) b.link(n * each + i, hub, rate(), latency()), b.link(hub, n * each + i, rate(), latency());
    for (const int s : top) b.link(hub, s, rate(), latency()), b.link(s, hub, rate(), latency());
  }
  return b.build(rule);
}

}  // namespace epsim::testing
