#include <algorithm>

#include "base/parallel.h"
#include "policies/placement/shared/coactivation.h"
#include "policies/placement/shared/copies.h"
#include "policies/placement/shared/slots.h"
#include "policies/placement/shared/table.h"

namespace epsim::parts_placement {
namespace {

Placement gather(std::span<const double> load, const Matrix<std::int64_t>& pairs, double alpha, const std::vector<std::int32_t>& first) {
  const std::vector<int> count = count_copies(replicate(load, first.back()), load.size());
  std::vector<double> part(load.size());
  double mean = 0;
  for (std::size_t e = 0; e < part.size(); ++e) {
    part[e] = load[e] / count[e];
    mean += load[e] / static_cast<double>(first.size() - 1);
  }
  const std::vector<int> room = rooms(first);
  std::vector<std::vector<int>> table(room.size());
  std::vector<double> rank_load(room.size());
  std::vector<int> left = count, free = room;
  const auto put = [&](std::size_t e, std::size_t r) {
    table[r].push_back(static_cast<int>(e));
    rank_load[r] += part[e];
    --left[e], --free[r];
  };
  std::vector<std::int64_t> together(load.size());  // with the rank's experts
  for (std::size_t r = 0; r < room.size(); ++r) {
    std::vector<bool> here(load.size());
    together.assign(load.size(), 0);
    const auto take = [&](std::size_t e) {
      put(e, r);
      here[e] = true;
      for (std::size_t o = 0; o < together.size(); ++o) together[o] += pairs(static_cast<std::int64_t>(e), static_cast<std::int64_t>(o));
    };
    const auto best = [&](const auto& value) {
      std::size_t found = load.size();
      for (std::size_t e = 0; e < load.size(); ++e)
        if (left[e] > 0 && !here[e] && (found == load.size() || value[e] > value[found])) found = e;
      return found;
    };
    if (room[r] == 0) continue;
    if (const std::size_t seed = best(part); seed < load.size()) take(seed);
    while (static_cast<double>(table[r].size() + 1) <= alpha * room[r]) {
      const std::size_t e = best(together);
      if (e == load.size() || rank_load[r] + part[e] > alpha * mean) break;
      take(e);
    }
  }
  std::vector<int> rest;
  for (std::size_t e = 0; e < left.size(); ++e) rest.insert(rest.end(), static_cast<std::size_t>(left[e]), static_cast<int>(e));
  std::ranges::stable_sort(rest, [&](int a, int b) { return part[static_cast<std::size_t>(a)] > part[static_cast<std::size_t>(b)]; });
  std::vector<double> weight;
  for (const int e : rest) weight.push_back(part[static_cast<std::size_t>(e)]);
  const std::vector<int> rank = pack_lightest(std::span<const double>(weight), rank_load, free);
  for (std::size_t i = 0; i < rest.size(); ++i) table[static_cast<std::size_t>(rank[i])].push_back(rest[i]);
  return placement_of(table, static_cast<int>(load.size()));
}

}  // namespace

/// TensorRT-LLM's placement by co-occurrence (a pull request): copies as in `tensorrt_llm`; then rank by rank a seed, the heaviest expert with copies left, and
/// the experts that tokens choose most often together with those on the rank, until `alpha` of its slots are taken or the next would bring it over `alpha` of
/// the mean load; what is left goes heaviest first to the lightest rank with room.
PlacementPolicy cooccurrence(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary = "TensorRT-LLM's co-occurrence: experts that tokens choose together share a rank up to a part of its slots and load, the rest goes by load.";
  policy.sees = PlacementPolicy::Sees::tokens;
  const std::int64_t wanted = read_slots(p, shape);
  const double alpha = p.number("alpha", "part of a rank's slots, and of the mean load, that is filled by co-occurrence", 0.8, 0, 1);
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    const std::vector<std::int32_t> first = spread_slots(wanted ? wanted : problem.experts, problem.ranks);
    std::vector<Placement> placements(problem.counts.size());
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
      const auto layer = static_cast<std::size_t>(l);
      const std::vector<std::int64_t> loads = problem.loads(layer);
      placements[layer] = gather(std::vector<double>(loads.begin(), loads.end()), coactivation(problem, layer), alpha, first);
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
