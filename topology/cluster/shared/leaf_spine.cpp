#include "topology/cluster/shared/leaf_spine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace epsim {

LeafSpine read_leaf_spine(Params& p, std::string_view per_leaf_key, std::int64_t hosts, const Device& device, Bandwidth rate, std::string_view rate_text) {
  LeafSpine net;
  net.oversubscription = p.rational("oversubscription", "bandwidth into a leaf from its hosts over bandwidth from it to the spines; at least 1", Rational{1, 1});
  // A leaf of 64 ports gives half of them to hosts.
  net.per_leaf = std::min(hosts, p.integer(per_leaf_key, "what a leaf serves", std::min<std::int64_t>(hosts, 32), 1, std::int64_t{1} << 40, "all, at most 32"));
  const auto full_rate = static_cast<std::int64_t>(std::ceil(static_cast<double>(net.per_leaf) / net.oversubscription.value()));
  net.spines = p.integer("spines", "number of spine switches; each has one link to every leaf", std::max<std::int64_t>(full_rate, 1), 1, 4096,
                         "as many as give leaf-spine links the rate of a host or less: hosts of a leaf / oversubscription, rounded up");
  net.host = {p.bandwidth("nic_bandwidth", "rate between a host and its leaf, one direction", rate, rate_text),
              p.time("nic_latency", "time of one hop between a host and its leaf", time_from_seconds(device.nic_latency.value), "the device's NIC latency")};
  net.switch_latency =
      p.time("switch_latency", "time of one hop between two switches", time_from_seconds(device.switch_latency.value), "the device's switch latency");
  if (net.oversubscription.num < net.oversubscription.den) p.error("oversubscription", "`oversubscription` must be at least 1");
  return net;
}

std::vector<std::int64_t> hosts_of_leaves(std::int64_t hosts, std::int64_t per_leaf) {
  std::vector<std::int64_t> out;
  for (std::int64_t first = 0; first < hosts; first += per_leaf) out.push_back(std::min(per_leaf, hosts - first));
  return out;
}

std::vector<std::int32_t> add_leaves(Fabric& f, std::span<const HostPort> hosts, const LeafSpine& net, std::string_view of, std::string_view tier) {
  std::vector<std::int32_t> leaves;
  const bool lone = static_cast<std::int64_t>(hosts.size()) <= net.per_leaf && !of.empty();
  for (std::size_t h = 0; h < hosts.size(); ++h) {
    if (static_cast<std::int64_t>(h) % net.per_leaf == 0) leaves.push_back(f.add_switch(lone ? fmt::format("leaf{}", of) : fmt::format("leaf {}{}", leaves.size(), of)));
    f.add_link(hosts[h].sends, leaves.back(), tier, net.host);
    f.add_link(leaves.back(), hosts[h].receives, tier, net.host);
  }
  return leaves;
}

void add_spines(Fabric& f, std::span<const std::int32_t> leaves, std::span<const std::int64_t> hosts, const LeafSpine& net, std::string_view of) {
  if (leaves.size() < 2) return;
  std::vector<std::int32_t> spines;
  for (std::int64_t s = 0; s < net.spines; ++s) spines.push_back(f.add_switch(fmt::format("spine {}{}", s, of)));
  for (std::size_t l = 0; l < leaves.size(); ++l) {
    const double up = static_cast<double>(hosts[l]) * net.host.bandwidth * static_cast<double>(net.oversubscription.den) / static_cast<double>(net.oversubscription.num);
    for (const std::int32_t s : spines) f.add_cable(leaves[l], s, "spine", {up / static_cast<double>(net.spines), net.switch_latency});
  }
}

void check_spine_links(Params& p, std::int64_t leaves, std::int64_t spines) {
  if (leaves * spines > 1'000'000) p.error("spines", fmt::format("{} leaves x {} spines are more than 1000000 links", leaves, spines));
}

}  // namespace epsim
