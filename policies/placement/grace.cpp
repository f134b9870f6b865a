#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/parallel.h"
#include "policies/placement/shared/affinity_groups.h"
#include "policies/placement/shared/coactivation.h"
#include "policies/placement/shared/homes.h"
#include "policies/placement/shared/remote_rows.h"
#include "policies/solve/assignment.h"
#include "policies/solve/bottleneck_assignment.h"

namespace epsim::parts_placement {
namespace {

/// Tokens of each home rank that chose any expert of each group: [R][groups].
Matrix<std::int64_t> tokens_to_groups(const Problem& problem, std::size_t layer, std::span<const int> group) {
  Matrix<std::int64_t> tokens(problem.ranks, problem.ranks);
  std::vector<std::int64_t> last(static_cast<std::size_t>(problem.ranks));  // the token that was last counted for a group
  std::int64_t token = 0;
  for (const std::shared_ptr<const Routing>& batch : problem.tokens[layer])
    for (const Rank r : ids<Rank>(batch->ranks()))
      for (std::int64_t t = batch->first_token[r]; t < batch->first_token[r + 1]; ++t) {
        ++token;
        for (std::int64_t i = t * batch->top_k; i < (t + 1) * batch->top_k; ++i) {
          const int g = group[batch->expert[static_cast<std::size_t>(i)]];
          if (std::exchange(last[static_cast<std::size_t>(g)], token) != token) ++tokens(r, g);
        }
      }
  return tokens;
}

/// The rank of each group, of which those from `groups` on are empty: the least sum of tokens that leave their rank, after the least largest sum into or out of
/// any rank if `bottleneck`.
std::vector<int> assign(const Matrix<std::int64_t>& tokens, bool bottleneck, int groups) {
  const std::int64_t n = tokens.rows;
  std::vector<double> out(static_cast<std::size_t>(n)), in(static_cast<std::size_t>(n));  // of a rank, to a group: if nothing stays
  for (std::int64_t r = 0; r < n; ++r)
    for (std::int64_t g = 0; g < n; ++g)
      out[static_cast<std::size_t>(r)] += static_cast<double>(tokens(r, g)), in[static_cast<std::size_t>(g)] += static_cast<double>(tokens(r, g));
  Matrix<double> remote(n, n), busiest(n, n);
  for (std::int64_t g = 0; g < n; ++g)
    for (std::int64_t r = 0; r < n; ++r) {
      const auto stay = static_cast<double>(tokens(r, g));
      remote(g, r) = in[static_cast<std::size_t>(g)] - stay;
      busiest(g, r) = std::max(in[static_cast<std::size_t>(g)], out[static_cast<std::size_t>(r)]) - stay;
    }
  if (bottleneck) return bottleneck_assignment(busiest, remote);
  remote.rows = groups;
  remote.cells.resize(static_cast<std::size_t>(groups) * static_cast<std::size_t>(n));
  return least_cost_assignment(remote);
}

/// The experts of each rank and, behind them, those of others that the rank's own tokens choose most (ties: the lowest), up to `copies`.
Placement with_copies(std::span<const Rank> rank, const Matrix<std::int64_t>& counts, int copies) {
  std::vector<std::uint16_t> expert_of_slot;
  std::vector<std::int32_t> first_slot = {0};
  const int experts = static_cast<int>(rank.size());
  for (const Rank r : ids<Rank>(counts.rows)) {
    std::vector<std::uint16_t> others;
    for (int e = 0; e < experts; ++e)
      (rank[static_cast<std::size_t>(e)] == r ? expert_of_slot : others).push_back(static_cast<std::uint16_t>(e));
    std::ranges::stable_sort(others, std::greater(), [&](std::uint16_t e) { return counts(r, e); });
    others.resize(std::min(others.size(), static_cast<std::size_t>(copies)));
    expert_of_slot.insert(expert_of_slot.end(), others.begin(), others.end());
    first_slot.push_back(static_cast<std::int32_t>(expert_of_slot.size()));
  }
  return Placement::from_experts(std::move(expert_of_slot), std::move(first_slot), experts);
}

}  // namespace

/// GRACE-MoE's grouping of co-activated experts, a group a rank, and what GRACE+ does then (as re-implemented in a fork of sgl-project/sglang): a token is sent
/// once to a rank however many of its experts are there, so experts that are chosen together belong together. `assign: total` sends least tokens in all;
/// `bottleneck` first makes the largest sum of tokens into or out of any rank least. `changes` then moves experts and swaps pairs by the same aim, and `copies`
/// gives each rank the experts of others that its own tokens choose most, for replica rules that keep tokens near. Each is off unless asked for: GRACE-MoE has neither.
PlacementPolicy grace(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary = "GRACE: spectral groups of experts that tokens choose together, one group a rank, assigned to ranks by where the tokens are.";
  policy.sees = PlacementPolicy::Sees::tokens;
  const bool equal = p.flag("equal_experts", "groups are of equal size, or differ by one where experts do not divide", true);
  const double ratio = p.number("ratio", "else a group's size may differ from the mean by this part of it, and by one", 0.15, 0, 1e6);
  const std::string assignment =
      p.choice("assign", "which rank a group goes to: by least remote tokens in `total`, by the least `bottleneck`, or `none`: group g to rank g",
               {"total", "bottleneck", "none"}, "total");
  const std::int64_t changes = p.integer("changes", "moves of an expert to another rank and swaps of two, at most, that make the aim of `assign` less", 0, 0, 1'000'000);
  const auto copies = static_cast<int>(p.integer("copies", "experts of other ranks that each rank holds as well: those that its own tokens choose most; `replica: nearest` has its own tokens use them, with `round_robin` anyone's do", 0, 0, shape ? std::max(0, shape->experts - 1) : 65'535));
  if (changes > 0 && assignment == "none") p.error("changes", "`assign: none` has no aim: take `total` or `bottleneck`");
  if (copies > 0 && shape && shape->ranks == 1) p.error("copies", "one rank holds all experts already");
  if (equal && p.has("ratio")) p.error("ratio", "`ratio` has no use where `equal_experts` is true");
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    const double ideal = static_cast<double>(problem.experts) / problem.ranks, spare = equal ? 0 : std::max(1.0, std::round(ideal * ratio));
    const int least = equal ? problem.experts / problem.ranks : std::max(0, static_cast<int>(std::ceil(ideal - spare)));
    const int most = equal ? static_cast<int>(std::ceil(ideal)) : static_cast<int>(std::floor(ideal + spare));
    std::vector<Placement> placements(problem.counts.size());
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
      const auto layer = static_cast<std::size_t>(l);
      const std::vector<int> group = group_by_affinity(coactivation(problem, layer), problem.ranks, least, most);
      std::vector<int> rank_of_group(static_cast<std::size_t>(problem.ranks));
      std::iota(rank_of_group.begin(), rank_of_group.end(), 0);
      if (assignment != "none")
        rank_of_group = assign(tokens_to_groups(problem, layer, group), assignment == "bottleneck", std::min(problem.experts, problem.ranks));
      std::vector<Rank> rank;
      for (const int g : group) rank.push_back(Rank(rank_of_group[static_cast<std::size_t>(g)]));
      if (changes > 0) rank = fewer_remote_rows(RemoteRows(problem, layer, std::move(rank)), assignment == "total" ? RemoteRows::Order::all : RemoteRows::Order::busiest, least, most, changes);
      placements[layer] = copies > 0 ? with_copies(rank, problem.counts[layer], copies) : place_experts(rank, problem.ranks);
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
