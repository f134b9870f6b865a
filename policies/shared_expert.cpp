#include "policies/shared_expert.h"

#include <algorithm>

#include "base/check.h"

namespace epsim {

void settle_shared_expert(Plan& plan, const SharedExpertRule& rule, const Topology& topology) {
  if (!rule.choose) return;
  std::vector<Rank> chosen = rule.choose(plan);
  const std::vector<std::int64_t>& first = plan.routing.first_token;
  ensure(static_cast<std::int64_t>(chosen.size()) == plan.routing.tokens(), "a shared-expert rule answers for every token");
  bool all_at_home = true;
  for (const Rank home : ids<Rank>(plan.ranks()))
    for (std::int64_t t = first[home]; t < first[home + 1]; ++t) {
      const Rank r = chosen[static_cast<std::size_t>(t)];
      ensure(r.valid() && r < plan.ranks(), "a shared-expert rule names ranks that there are");
      all_at_home = all_at_home && r == home;
    }
  if (all_at_home) return;
  plan.shared_rank = std::move(chosen);
  plan.reach = reach_of(plan, topology);
}

}  // namespace epsim
