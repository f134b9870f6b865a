#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "topology/cluster/shared/leaf_spine.h"

namespace epsim::parts_cluster {
namespace {

struct Upper {
  std::int64_t leaves_per_pod = 1, cores = 1;
  Rational oversubscription;
};

/// What only a tree of three tiers has.
Upper read_upper(Params& p, std::int64_t leaves, const LeafSpine& net, bool used) {
  Upper upper;
  upper.leaves_per_pod =
      std::min(leaves, p.integer("leaves_per_pod", "leaves of a pod (3 tiers)", std::min(leaves, net.spines), 1, std::int64_t{1} << 40, "as many as spines, which is the tree of equal switches"));
  upper.oversubscription = p.rational("core_oversubscription", "bandwidth into a pod's spines from its leaves over bandwidth from them to the cores; at least 1 (3 tiers)", Rational{1, 1});
  const auto each = static_cast<std::int64_t>(std::ceil(static_cast<double>(upper.leaves_per_pod) / upper.oversubscription.value()));
  upper.cores = p.integer("cores", "number of core switches, a multiple of the spines of a pod; each has one link to every pod (3 tiers)", net.spines * std::max<std::int64_t>(each, 1), 1, 65536,
                          "as many as give spine-core links the rate of a leaf-spine link or less");
  for (const char* key : {"leaves_per_pod", "core_oversubscription", "cores"})
    if (!used && p.has(key)) p.error(key, fmt::format("a fat tree of 2 tiers has no `{}`", key));
  if (upper.oversubscription.num < upper.oversubscription.den) p.error("core_oversubscription", "`core_oversubscription` must be at least 1");
  if (used && upper.cores % net.spines != 0) p.error("cores", fmt::format("{} cores are no multiple of {} spines", upper.cores, net.spines));
  return upper;
}

/// Pods of leaves and spines, and cores: spine s of every pod has a link to cores s x each to (s + 1) x each - 1.
void add_pods(Fabric& f, std::span<const std::int32_t> leaves, std::span<const std::int64_t> hosts, const LeafSpine& net, const Upper& upper) {
  if (leaves.size() < 2) return;
  const auto count = static_cast<std::int64_t>(leaves.size());
  const std::int64_t pods = (count + upper.leaves_per_pod - 1) / upper.leaves_per_pod, each = upper.cores / net.spines;
  std::vector<std::int32_t> cores;
  for (std::int64_t c = 0; c < upper.cores && pods > 1; ++c) cores.push_back(f.add_switch(fmt::format("core {}", c)));
  for (std::int64_t pod = 0; pod < pods; ++pod) {
    const std::int64_t first = pod * upper.leaves_per_pod, last = std::min(count, first + upper.leaves_per_pod);
    std::vector<std::int32_t> spines;
    for (std::int64_t s = 0; s < net.spines; ++s) spines.push_back(f.add_switch(fmt::format("spine {} of pod {}", s, pod)));
    double into = 0;  // of one spine
    for (std::int64_t l = first; l < last; ++l) {
      const double up = static_cast<double>(hosts[static_cast<std::size_t>(l)]) * net.host.bandwidth / net.oversubscription.value() / static_cast<double>(net.spines);
      for (const std::int32_t s : spines) f.add_cable(leaves[static_cast<std::size_t>(l)], s, "spine", {up, net.switch_latency});
      into += up;
    }
    if (pods > 1)
      for (std::size_t c = 0; c < cores.size(); ++c)
        f.add_cable(spines[c / static_cast<std::size_t>(each)], cores[c], "core", {into / upper.oversubscription.value() / static_cast<double>(each), net.switch_latency});
  }
}

}  // namespace

Topology fat_tree(Params& p) {
  Topology listed;
  listed.summary = "Leaves of hosts and spines above them; with 3 tiers pods of both and cores above. A host is a rank, or a node of ranks around a switch.";
  const std::int64_t nodes = p.integer("nodes", "number of hosts", {}, 1, kMaxRanks);
  const std::int64_t per_node = p.integer("ranks_per_node", "ranks of a host; several share its link through a switch", 1, 1, kMaxRanks);
  const std::int64_t tiers = p.integer("tiers", "tiers of switches above the hosts", 2, 2, 3);
  const Device& device = read_device(p);
  const Port inner = read_scale_up(p, device);
  const LeafSpine net = read_leaf_spine(p, "nodes_per_leaf", nodes, device, static_cast<double>(per_node) * device.nic_bandwidth.value, "ranks_per_node x the device's NIC rate");
  const std::int64_t leaves = (nodes + net.per_leaf - 1) / net.per_leaf;
  const Upper upper = read_upper(p, leaves, net, tiers == 3);
  const Paths paths = read_paths(p);
  for (const char* key : {"bandwidth", "latency"})
    if (per_node == 1 && p.has(key)) p.error(key, fmt::format("`{}` is of links inside a node, which a node of one rank does not have", key));
  if (p.usable()) check_ranks(p, "nodes", nodes * per_node);
  if (p.usable()) check_spine_links(p, leaves, net.spines + (tiers == 3 ? upper.cores / upper.leaves_per_pod : 0));
  if (!p.usable()) return listed;

  Fabric f;
  std::vector<HostPort> hosts;
  for (Node n : ids<Node>(nodes)) {
    const std::int32_t host = per_node == 1 ? f.add_rank(n) : f.add_node(n, per_node, inner);
    hosts.push_back({host, host});
  }
  const std::vector<std::int64_t> sizes = hosts_of_leaves(nodes, net.per_leaf);
  const std::vector<std::int32_t> made = add_leaves(f, hosts, net, "", "host");
  if (tiers == 2)
    add_spines(f, made, sizes, net, "");
  else
    add_pods(f, made, sizes, net, upper);
  return f.build(device, paths, p.at(), listed.summary);
}

}  // namespace epsim::parts_cluster
