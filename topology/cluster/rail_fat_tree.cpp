#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "topology/cluster/shared/fabric.h"

namespace epsim::parts_cluster {
namespace {

constexpr std::int64_t kMaxSpineLinks = 1'000'000;

}  // namespace

Topology rail_fat_tree(Params& p) {
  Topology listed;
  listed.summary = "A switch in each node, one NIC a rank; the i-th NICs of all nodes meet in the leaves of rail i, and spines join the leaves.";
  const std::int64_t nodes = p.integer("nodes", "number of nodes", {}, 1, kMaxRanks);
  const std::int64_t per_node = p.integer("ranks_per_node", "ranks of a node, which is the number of rails", {}, 1, kMaxRanks);
  const Device& device = read_device(p);
  const Port inner = read_scale_up(p, device);
  const Rational oversubscription =
      p.rational("oversubscription", "bandwidth into a leaf from its NICs over bandwidth from it to the spines; at least 1", Rational{1, 1});
  // A leaf of 64 ports gives half of them to NICs.
  const std::int64_t per_leaf = std::min(nodes, p.integer("nodes_per_leaf", "nodes that a leaf of a rail serves", std::min<std::int64_t>(nodes, 32), 1,
                                                          std::int64_t{1} << 40, "all nodes, at most 32"));
  const auto full_rate = static_cast<std::int64_t>(std::ceil(static_cast<double>(per_leaf) / oversubscription.value()));
  const std::int64_t spines = p.integer("spines", "number of spine switches; each has one link to every leaf", std::max<std::int64_t>(full_rate, 1), 1, 4096,
                                        "as many as give leaf-spine links the rate of a NIC or less: nodes_per_leaf / oversubscription, rounded up");
  const Port nic = {
      p.bandwidth("nic_bandwidth", "rate of a rank's NIC, one direction", device.nic_bandwidth.value, "the device's NIC rate"),
      p.time("nic_latency", "time of one hop between a NIC and its leaf", time_from_seconds(device.nic_latency.value), "the device's NIC latency")};
  const Time switch_latency =
      p.time("switch_latency", "time of one hop between a leaf and a spine", time_from_seconds(device.switch_latency.value), "the device's switch latency");
  const Paths paths = read_paths(p);
  if (oversubscription.num < oversubscription.den) p.error("oversubscription", "`oversubscription` must be at least 1");
  const std::int64_t leaves = (nodes + per_leaf - 1) / per_leaf;  // of a rail
  if (p.usable()) check_ranks(p, "nodes", nodes * per_node);
  if (p.usable() && leaves * per_node * spines > kMaxSpineLinks)
    p.error("spines", fmt::format("{} leaves x {} spines are more than {} links", leaves * per_node, spines, kMaxSpineLinks));
  if (!p.usable()) return listed;

  Fabric f;
  for (Node n : ids<Node>(nodes)) f.add_node(n, per_node, inner);
  // Of a node's vertices its switch comes first.
  const auto rank_vertex = [&](std::int64_t node, std::int64_t rail) { return static_cast<std::int32_t>(node * (per_node + 1) + 1 + rail); };
  std::vector<std::int32_t> spine;
  for (std::int64_t s = 0; s < spines && leaves * per_node > 1; ++s) spine.push_back(f.add_switch(fmt::format("spine {}", s)));
  for (std::int64_t rail = 0; rail < per_node; ++rail)
    for (std::int64_t l = 0; l < leaves; ++l) {
      const std::int32_t leaf = f.add_switch(leaves == 1 ? fmt::format("leaf of rail {}", rail) : fmt::format("leaf {} of rail {}", l, rail));
      const std::int64_t first = l * per_leaf, last = std::min(nodes, first + per_leaf);
      for (std::int64_t n = first; n < last; ++n) f.add_cable(rank_vertex(n, rail), leaf, "rail", nic);
      const double up =
          static_cast<double>(last - first) * nic.bandwidth * static_cast<double>(oversubscription.den) / static_cast<double>(oversubscription.num);
      for (const std::int32_t s : spine) f.add_cable(leaf, s, "spine", {up / static_cast<double>(spines), switch_latency});
    }
  return f.build(device, paths, p.at(), listed.summary);
}

}  // namespace epsim::parts_cluster
