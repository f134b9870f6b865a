#include "policies/placement/shared/pack.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace epsim {

std::vector<Replica> replicate_heaviest(std::span<const std::int64_t> loads, std::int64_t replicas) {
  std::vector<Expert> made;
  for (const Expert e : ids<Expert>(static_cast<std::int64_t>(loads.size()))) made.push_back(e);
  std::vector<double> load(loads.begin(), loads.end());
  std::vector<int> count(loads.size(), 1);
  while (static_cast<std::int64_t>(made.size()) < replicas) {
    const Expert e(std::ranges::max_element(load) - load.begin());
    load[e] = static_cast<double>(loads[e]) / ++count[e];
    made.push_back(e);
  }
  std::vector<Replica> out;
  for (const Expert e : made) out.push_back({e, load[e]});
  return out;
}

Placement pack_heaviest_first(std::span<const Replica> replicas, std::vector<std::int32_t> first_slot, std::span<const double> speed, int experts) {
  ensure(first_slot.back() == static_cast<std::int32_t>(replicas.size()), "there is a slot for each replica");
  std::vector<std::size_t> order(replicas.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, std::ranges::greater{}, [&](std::size_t i) { return replicas[i].load; });

  const std::size_t ranks = first_slot.size() - 1;
  std::vector<double> load(ranks);
  std::vector<std::int32_t> next(first_slot.begin(), first_slot.end() - 1), slot(replicas.size());
  for (const std::size_t i : order) {
    std::size_t best = ranks;
    double soonest = 0;
    for (std::size_t r = 0; r < ranks; ++r) {
      if (next[r] == first_slot[r + 1]) continue;
      const double done = (load[r] + replicas[i].load) / (speed.empty() ? 1 : speed[r]);
      if (best == ranks || done < soonest) best = r, soonest = done;
    }
    slot[i] = next[best]++;
    load[best] += replicas[i].load;
  }

  Placement p{std::vector<std::uint16_t>(replicas.size()), std::move(first_slot), std::vector<std::vector<Slot>>(static_cast<std::size_t>(experts)), {}};
  for (std::size_t i = 0; i < replicas.size(); ++i) {
    p.expert_of_slot[static_cast<std::size_t>(slot[i])] = static_cast<std::uint16_t>(replicas[i].expert);
    p.slots_of_expert[replicas[i].expert].push_back(Slot(slot[i]));
  }
  return p;
}

}  // namespace epsim
