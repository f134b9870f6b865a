#include <fmt/format.h>

#include <algorithm>

#include "policies/placement/shared/eplb_layer.h"

namespace epsim::parts_placement {

/// SGLang's `elasticity_aware`: EPLB over the ranks that are up; with ranks down it ignores nodes and groups. Ranks that are down have no slots (SGLang fills
/// theirs with an expert that no token is sent to). `slots` counts those of all ranks, up or down; default: one redundant slot on each rank that is up.
PlacementPolicy elasticity_aware(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary = "SGLang's elasticity_aware: EPLB over the ranks that are up, as if the others were not there.";
  EplbSettings settings = read_eplb(p);
  std::vector<int> down = p.ranges("down", "ranks that are down, such as 3 or 8-15; none").value_or(std::vector<int>{});
  if (!p.usable()) return policy;
  std::ranges::sort(down);
  down.erase(std::ranges::unique(down).begin(), down.end());
  if (!down.empty()) {
    if (p.has("groups")) p.error("groups", "`groups` has no use with ranks down: nodes are ignored then");
    if (settings.mode == "hierarchical") p.error("mode", "`mode: hierarchical` cannot be with ranks down: nodes are ignored then");
    settings.mode = "global", settings.groups = 0;
  }
  if (p.usable()) check_eplb(p, settings, shape);
  if (shape && p.usable() && !down.empty()) {
    const auto up = shape->ranks - static_cast<std::int64_t>(down.size());
    if (down.back() >= shape->ranks || down.front() < 0)
      p.error("down", fmt::format("there is no rank {}: there are {}", down.front() < 0 ? down.front() : down.back(), shape->ranks));
    else if (up == 0)
      p.error("down", "all ranks are down");
    else if (settings.slots && settings.slots / shape->ranks * up < shape->experts)
      p.error("slots", fmt::format("{} slots a rank are {} on the {} ranks that are up, fewer than the {} experts; {} would do", settings.slots / shape->ranks,
                                   settings.slots / shape->ranks * up, up, shape->experts, (shape->experts + up - 1) / up * shape->ranks));
  }
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    if (down.empty()) return eplb_all_layers(problem, eplb_sizes(settings, problem));
    const int up = problem.ranks - static_cast<int>(down.size());
    const int rank_slots = settings.slots ? static_cast<int>(settings.slots) / problem.ranks : (problem.experts + up - 1) / up + 1;
    std::vector<Placement> placements = eplb_all_layers(problem, {problem.experts, rank_slots * up, up, 1, 1});
    std::vector<std::int32_t> first{0};
    for (int r = 0; r < problem.ranks; ++r) first.push_back(first.back() + (std::ranges::binary_search(down, r) ? 0 : rank_slots));
    for (Placement& placement : placements) placement.first_slot = first;
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
