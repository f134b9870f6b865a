#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/parallel.h"
#include "policies/placement/shared/copies.h"
#include "policies/placement/shared/slots.h"
#include "policies/placement/shared/table.h"

namespace epsim::parts_placement {
namespace {

/// The heaviest `hot` experts in the first slots of every rank; the other slots by load, copies of one expert apart where they can be.
Placement bias(std::span<const double> load, std::size_t hot, const std::vector<std::int32_t>& first) {
  std::vector<int> order(load.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int a, int b) { return load[static_cast<std::size_t>(a)] > load[static_cast<std::size_t>(b)]; });
  const std::size_t ranks = first.size() - 1;
  std::vector<std::vector<int>> table(ranks, std::vector<int>(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(hot)));
  const std::size_t left = static_cast<std::size_t>(first.back()) - hot * ranks;
  // What the hot experts leave. Where all are hot, slots that are over go to all alike.
  std::vector<int> rest(order.begin() + static_cast<std::ptrdiff_t>(hot), order.end());
  std::vector<int> expert_of_copy;
  if (rest.empty()) {
    for (std::size_t i = 0; i < left; ++i) expert_of_copy.push_back(order[i % order.size()]);
  } else {
    std::vector<double> rest_load;
    std::ranges::sort(rest);
    for (const int e : rest) rest_load.push_back(load[static_cast<std::size_t>(e)]);
    for (const int i : replicate(std::span<const double>(rest_load), static_cast<std::int64_t>(left)))
      expert_of_copy.push_back(rest[static_cast<std::size_t>(i)]);
  }
  const SortedCopies copies = sort_copies(expert_of_copy, load);
  std::vector<double> rank_load(ranks);
  for (std::size_t i = 0; i < copies.expert.size(); ++i) {
    std::size_t best = ranks;
    bool best_apart = false;
    for (std::size_t r = 0; r < ranks; ++r) {
      if (static_cast<std::int32_t>(table[r].size()) == first[r + 1] - first[r]) continue;
      const bool apart = std::ranges::find(table[r], copies.expert[i]) == table[r].end();
      if (best == ranks || (apart && !best_apart) || (apart == best_apart && rank_load[r] < rank_load[best])) best = r, best_apart = apart;
    }
    table[best].push_back(copies.expert[i]);
    rank_load[best] += copies.weight[i];
  }
  return placement_of(table, static_cast<int>(load.size()));
}

}  // namespace

/// The k heaviest experts on every rank, the others packed heaviest first onto the lightest rank with room ("biased" redundancy as ROCm's ATOM reports it).
/// Slots beyond E - k + kR are further copies of the other experts, each for the one whose copies carry the most.
PlacementPolicy replicate_top_k(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary = "The k heaviest experts on every rank, the others packed by load (ATOM's biased redundancy).";
  const std::int64_t slots =
      p.integer("slots", "slots over all ranks, one expert replica each", 0, 1, std::int64_t{1} << 20, "as many as k needs: E - k + k R");
  const std::int64_t k = p.integer("k", "experts on every rank", 0, 1, 65'536, "as many as the slots allow; without `slots`, 1");
  if (!p.usable()) return policy;
  if (shape) {
    const std::int64_t needed = shape->experts - k + k * shape->ranks;
    if (k > shape->experts)
      p.error("k", fmt::format("{} experts cannot be on every rank: the model has {}", k, shape->experts));
    else if (p.has("slots") && slots < needed)
      p.error("slots", fmt::format("{} slots are fewer than the {} that {} experts{} need", slots, needed, shape->experts,
                                   k ? fmt::format(", {} of them on each of {} ranks,", k, shape->ranks) : ""));
  }
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    const std::int64_t e = problem.experts, r = problem.ranks;
    const std::int64_t hot = k ? k : slots == 0 ? 1 : r == 1 ? 0 : std::min(e, (slots - e) / (r - 1));
    const std::vector<std::int32_t> first = spread_slots(slots ? slots : e - hot + hot * r, problem.ranks);
    std::vector<Placement> placements(problem.counts.size());
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
      const std::vector<std::int64_t> loads = problem.loads(static_cast<std::size_t>(l));
      placements[static_cast<std::size_t>(l)] = bias(std::vector<double>(loads.begin(), loads.end()), static_cast<std::size_t>(hot), first);
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
