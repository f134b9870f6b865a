#include "topology/cluster/shared/pods.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace epsim {

Pods read_pods(Params& p, std::int64_t leaves, std::int64_t bundle, const LeafSpine& net, bool used) {
  Pods pods;
  const std::int64_t bundles = std::max<std::int64_t>(leaves / bundle, 1), equal = std::max<std::int64_t>(net.spines / bundle, 1);
  pods.leaves = bundle * std::min(bundles, p.integer("leaves_per_pod", bundle == 1 ? "leaves of a pod (3 tiers)" : "leaves of each rail in a pod (3 tiers)", std::min(bundles, equal), 1, std::int64_t{1} << 40,
                                                     bundle == 1 ? "as many as spines, which is the tree of equal switches" : "spines / rails, which is the tree of equal switches"));
  pods.oversubscription = p.rational("core_oversubscription", "bandwidth into a pod's spines from its leaves over bandwidth from them to the cores; at least 1 (3 tiers)", Rational{1, 1});
  const auto each = static_cast<std::int64_t>(std::ceil(static_cast<double>(pods.leaves) / pods.oversubscription.value()));
  pods.cores = p.integer("cores", "number of core switches, a multiple of the spines of a pod; each has one link to every pod (3 tiers)", net.spines * std::max<std::int64_t>(each, 1), 1, 65536,
                         "as many as give spine-core links the rate of a leaf-spine link or less");
  for (const char* key : {"leaves_per_pod", "core_oversubscription", "cores"})
    if (!used && p.has(key)) p.error(key, fmt::format("a fat tree of 2 tiers has no `{}`", key));
  if (pods.oversubscription.num < pods.oversubscription.den) p.error("core_oversubscription", "`core_oversubscription` must be at least 1");
  if (used && pods.cores % net.spines != 0) p.error("cores", fmt::format("{} cores are no multiple of {} spines", pods.cores, net.spines));
  if (used && p.usable()) check_spine_links(p, leaves, net.spines + pods.cores / pods.leaves);
  return pods;
}

void add_pods(Fabric& f, std::span<const std::int32_t> leaves, std::span<const std::int64_t> hosts, const LeafSpine& net, const Pods& pods) {
  if (leaves.size() < 2) return;
  const auto count = static_cast<std::int64_t>(leaves.size());
  const std::int64_t number = (count + pods.leaves - 1) / pods.leaves, each = pods.cores / net.spines;
  std::vector<std::int32_t> cores;
  for (std::int64_t c = 0; c < pods.cores && number > 1; ++c) cores.push_back(f.add_switch(fmt::format("core {}", c)));
  for (std::int64_t pod = 0; pod < number; ++pod) {
    const std::int64_t first = pod * pods.leaves, last = std::min(count, first + pods.leaves);
    std::vector<std::int32_t> spines;
    for (std::int64_t s = 0; s < net.spines; ++s) spines.push_back(f.add_switch(fmt::format("spine {} of pod {}", s, pod)));
    double into = 0;  // of one spine
    for (std::int64_t l = first; l < last; ++l) {
      const double up = static_cast<double>(hosts[static_cast<std::size_t>(l)]) * net.host.bandwidth / net.oversubscription.value() / static_cast<double>(net.spines);
      for (const std::int32_t s : spines) f.add_cable(leaves[static_cast<std::size_t>(l)], s, "spine", {up, net.switch_latency});
      into += up;
    }
    if (number > 1)
      for (std::size_t c = 0; c < cores.size(); ++c)
        f.add_cable(spines[c / static_cast<std::size_t>(each)], cores[c], "core", {into / pods.oversubscription.value() / static_cast<double>(each), net.switch_latency});
  }
}

}  // namespace epsim
