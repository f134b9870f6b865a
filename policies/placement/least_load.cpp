#include "policies/least_load.h"

#include <fmt/format.h>

#include "policies/placement/shared/slots.h"

namespace epsim::parts_placement {
namespace {

constexpr int kMostExperts = 16, kMostSlots = 24;  // beyond them some searches take minutes

}  // namespace

/// The oracle for load: the placement whose fullest rank is lowest of all, found and proven by integer programming (policies/least_load.h), layer by layer and for small cases. Which replica takes what is part of the optimum, so that the
/// replica rule must follow it: with `split: even` one that deals evenly (`round_robin`), with `split: free` the rule `quota`.
/// Where the optimum is not proven within `nodes` the placing fails, rather than call something else the optimum.
PlacementPolicy least_load(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary = "The placement with the lowest fullest rank of all, proven by integer programming (CBC); for a dozen experts and a few slots a rank.";
  const std::int64_t wanted = read_slots(p, shape);
  const bool even = p.choice("split", "an expert's copies over its replicas: in equal parts, or in any whole parts (for replica: quota)", {"even", "free"}, "even") == "even";
  const auto nodes = static_cast<int>(p.integer("nodes", "of each search, of which there are about ten, before it is given up", 1000, 1, 1'000'000'000));
  const Location at = p.at();
  if (!p.usable()) return policy;
  if (shape && (shape->experts > kMostExperts || wanted > kMostSlots))
    p.error("slots", fmt::format("the least load is found for at most {} experts in {} slots, not {} in {}; bounds (`load_gap`) are printed for any number", kMostExperts, kMostSlots, shape->experts, wanted ? wanted : shape->experts));
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    const std::vector<std::int32_t> first = spread_slots(wanted ? wanted : problem.experts, problem.ranks);
    std::vector<std::int32_t> slots;
    for (std::size_t r = 0; r + 1 < first.size(); ++r) slots.push_back(first[r + 1] - first[r]);
    std::vector<Placement> placements;
    for (std::size_t l = 0; l < problem.counts.size(); ++l) {
      LeastLoad found = epsim::least_load(problem.loads(l), slots, even, {.seconds = {}, .nodes = nodes});
      if (found.load > found.bound * (1 + 1e-9))
        throw InputError(at, fmt::format("the least load of layer {} is not proven: the search found {:.6g} copies on the fullest rank, and none has fewer than {:.6g}; {}", problem.layers[l], found.load, found.bound,
                                         found.searched ? "more `nodes` search longer" : "there are too many ways to fill a rank: it is for a dozen experts and a few slots a rank"));
      placements.push_back(std::move(found.placement));
    }
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
