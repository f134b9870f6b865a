#include "policies/placement/shared/homes.h"

#include <algorithm>
#include <tuple>

#include "base/check.h"
#include "policies/placement/shared/slots.h"

namespace epsim {

std::vector<Rank> home_ranks(const Problem& problem, std::size_t layer) {
  std::vector<Rank> home;
  if (!problem.previous.empty()) {
    const Placement& before = problem.previous[layer];
    for (const std::vector<Slot>& replicas : before.slots_of_expert) home.push_back(before.rank_of(replicas.front()));
    return home;
  }
  const std::vector<std::int32_t> first = spread_slots(problem.experts, problem.ranks);
  for (const Rank r : ids<Rank>(problem.ranks)) home.resize(static_cast<std::size_t>(first[static_cast<std::size_t>(r) + 1]), r);
  return home;
}

Placement place_experts(std::span<const Rank> rank, int ranks) {
  Placement p = place_quotas(rank, ranks, std::vector<std::int64_t>(rank.size()), {});
  p.share.clear();
  return p;
}

Placement place_quotas(std::span<const Rank> home, int ranks, std::span<const std::int64_t> loads, std::vector<Quota> quotas) {
  std::ranges::sort(quotas, {}, [](const Quota& q) { return std::tuple(q.rank.value, q.expert.value); });
  std::vector<Quota> away;
  std::vector<std::int64_t> left(loads.begin(), loads.end());
  for (const Quota& q : quotas) {
    ensure(q.rank != home[q.expert], "a quota is for a rank that is not the expert's home");
    left[q.expert] -= q.copies;
    if (!away.empty() && away.back().rank == q.rank && away.back().expert == q.expert)
      away.back().copies += q.copies;
    else
      away.push_back(q);
  }

  std::vector<std::vector<Expert>> at_home(static_cast<std::size_t>(ranks));
  for (const Expert e : ids<Expert>(static_cast<std::int64_t>(home.size()))) at_home[home[e]].push_back(e);
  Placement p;
  p.first_slot.push_back(0);
  p.slots_of_expert.resize(home.size(), std::vector<Slot>(1));
  const auto add = [&](Expert e, std::int64_t copies) {
    p.expert_of_slot.push_back(static_cast<std::uint16_t>(e));
    p.share.push_back(loads[e] > 0 ? static_cast<double>(copies) / static_cast<double>(loads[e]) : 0.0);
    return Slot(p.slots() - 1);
  };
  auto next = away.begin();
  for (const Rank r : ids<Rank>(ranks)) {
    for (const Expert e : at_home[r]) {
      p.slots_of_expert[e].front() = add(e, left[e]);
      if (loads[e] == 0) p.share.back() = 1;
    }
    for (; next != away.end() && next->rank == r; ++next) p.slots_of_expert[next->expert].push_back(add(next->expert, next->copies));
    p.first_slot.push_back(p.slots());
  }
  return p;
}

}  // namespace epsim
