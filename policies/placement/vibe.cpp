#include <fmt/format.h>

#include "base/parallel.h"
#include "policies/placement/shared/copies.h"
#include "policies/placement/shared/slots.h"
#include "policies/placement/shared/table.h"

namespace epsim::parts_placement {
namespace {

std::vector<double> read_speeds(Params& p, const Shape* shape) {
  std::vector<double> speed;
  p.custom("speeds", "a list of numbers", "the ranks' own", "how fast each rank computes, in any unit; a shorter list repeats",
           [&](const Setting& value, Diagnostics& problems) {
             if (value.kind != Setting::Kind::list || value.items.empty())
               return problems.add(value.at, "`speeds` must be a list of numbers above 0, such as [1, 0.8]");
             for (const Setting& item : value.items) {
               const std::optional<double> number = item.is_scalar() ? parse_number(item.text) : std::nullopt;
               if (!number || *number <= 0)
                 problems.add(item.at, "a speed must be a number above 0");
               else
                 speed.push_back(*number);
             }
             if (shape && static_cast<int>(value.items.size()) > shape->ranks)
               problems.add(value.at, fmt::format("{} speeds are given for {} ranks", value.items.size(), shape->ranks));
           });
  return speed;
}

/// The rank of each item, given heaviest first: the one with room that would be done first with it, by (load + weight) / speed (ties: lowest rank). Longest
/// processing time first on machines of different speeds (Gonzalez, Ibarra and Sahni 1977).
std::vector<int> pack_soonest(std::span<const double> weight, std::span<const double> speed, std::vector<int> room) {
  std::vector<double> load(room.size());
  std::vector<int> out;
  for (const double w : weight) {
    std::size_t best = room.size();
    const auto done = [&](std::size_t r) { return (load[r] + w) / speed[r]; };
    for (std::size_t r = 0; r < room.size(); ++r)
      if (room[r] > 0 && (best == room.size() || done(r) < done(best))) best = r;
    load[best] += w;
    --room[best];
    out.push_back(static_cast<int>(best));
  }
  return out;
}

}  // namespace

/// ViBE's placement in its least form (no code is public; the abstract: minimise the largest load / speed over unequal GPUs): EPLB's replication, then its
/// packing with each rank's load divided by the rank's speed. Slots are as evenly spread as they go. With one speed for all it balances as EPLB's global mode
/// does.
PlacementPolicy vibe(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary = "ViBE: replicates the heaviest experts as EPLB does, and packs replicas so that slow ranks get less: by load over the rank's speed.";
  const std::int64_t wanted = read_slots(p, shape, "one redundant slot a rank: experts rounded up to the ranks, and one more a rank");
  const std::vector<double> given = read_speeds(p, shape);
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    const std::int64_t slots = wanted ? wanted : ((problem.experts + problem.ranks - 1) / problem.ranks + 1) * problem.ranks;
    std::vector<double> speed = problem.speed;
    if (speed.empty() || !given.empty()) speed.assign(static_cast<std::size_t>(problem.ranks), 1);
    for (std::size_t r = 0; r < speed.size() && !given.empty(); ++r) speed[r] = given[r % given.size()];
    const std::vector<std::int32_t> first_slot = spread_slots(slots, problem.ranks);
    std::vector<Placement> placements(problem.counts.size());
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
      const auto layer = static_cast<std::size_t>(l);
      const std::vector<std::int64_t> loads = problem.loads(layer);
      const std::vector<double> weight(loads.begin(), loads.end());
      const SortedCopies copies = sort_copies(replicate<double>(weight, slots), weight);
      placements[layer] = placement_of(copies.expert, pack_soonest(copies.weight, speed, rooms(first_slot)), first_slot, problem.experts);
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
