#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/parallel.h"
#include "policies/placement/shared/eplb_layer.h"
#include "policies/placement/shared/slots.h"
#include "policies/placement/shared/table.h"

namespace epsim::parts_placement {
namespace {

/// The two heaviest experts of a step, by load / copies.
struct Top {
  std::size_t best = 0;
  double most = 0, second = 0;
};

Top top_of(std::span<const double> load, std::span<const int> count) {
  Top top{0, -1, -1};
  for (std::size_t e = 0; e < load.size(); ++e) {
    const double score = load[e] / count[e];
    if (score > top.most) {
      top = {e, score, top.most};
    } else if (score > top.second) {
      top.second = score;
    }
  }
  top.second = std::max(top.second, 0.0);
  return top;
}

/// Copies of each expert: one each, then always one more to the expert that brings the sum over steps of the heaviest copy down the most (ties: lowest index).
std::vector<int> replicate_by_step(const Matrix<double>& load, std::int64_t copies) {
  const auto experts = static_cast<std::size_t>(load.columns), steps = static_cast<std::size_t>(load.rows);
  std::vector<int> count(experts, 1);
  std::vector<Top> tops(steps);
  for (std::size_t t = 0; t < steps; ++t) tops[t] = top_of(load.row(static_cast<std::int64_t>(t)), count);
  std::vector<double> gain(experts);
  for (std::int64_t given = load.columns; given < copies; ++given) {
    // Only the heaviest expert of a step can lower that step's maximum.
    gain.assign(experts, 0);
    for (std::size_t t = 0; t < steps; ++t) {
      const Top& top = tops[t];
      gain[top.best] += top.most - std::max(top.second, load(static_cast<std::int64_t>(t), static_cast<std::int64_t>(top.best)) / (count[top.best] + 1));
    }
    const auto e = static_cast<std::size_t>(std::ranges::max_element(gain) - gain.begin());
    ++count[e];
    for (std::size_t t = 0; t < steps; ++t) {
      const double before = load(static_cast<std::int64_t>(t), static_cast<std::int64_t>(e)) / (count[e] - 1);
      if (before >= tops[t].second) tops[t] = top_of(load.row(static_cast<std::int64_t>(t)), count);
    }
  }
  return count;
}

/// Copies by load over all steps, dealt to ranks in turn, forwards and backwards by turns; the last ranks may have a slot less.
void deal_snake(const Matrix<double>& load, std::span<const int> count, std::span<const int> expert_of, std::span<std::vector<int>> table,
                std::span<const int> room) {
  std::vector<double> part(count.size());
  for (std::int64_t t = 0; t < load.rows; ++t)
    for (std::size_t e = 0; e < part.size(); ++e) part[e] += load(t, static_cast<std::int64_t>(e));
  std::vector<int> copies;
  for (std::size_t e = 0; e < part.size(); ++e) {
    part[e] /= count[e];
    copies.insert(copies.end(), static_cast<std::size_t>(count[e]), static_cast<int>(e));
  }
  std::ranges::stable_sort(copies, [&](int a, int b) { return part[static_cast<std::size_t>(a)] > part[static_cast<std::size_t>(b)]; });
  std::size_t next = 0;
  for (int row = 0; next < copies.size(); ++row) {
    std::vector<std::size_t> open;
    for (std::size_t r = 0; r < room.size(); ++r)
      if (room[r] > row) open.push_back(r);
    if (row % 2 == 1) std::ranges::reverse(open);
    for (const std::size_t r : open) table[r].push_back(expert_of[static_cast<std::size_t>(copies[next++])]);
  }
}

}  // namespace

/// SGLang's `deepseek_vec`: copies are chosen by the sum over steps of the heaviest copy of each step, so an expert that is hot for a while gets one, and dealt
/// to ranks in snake order by load. A step is a batch; load 1e-4 x index is added to each, as in the original, to part ties. In the hierarchical form expert
/// groups are first packed onto nodes as in EPLB and each node is served alone. Slots that do not divide by ranks are spread as evenly as they go in the global
/// form.
PlacementPolicy deepseek_vec(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary = "SGLang's deepseek_vec: copies lower the sum over batches of each batch's heaviest copy; copies are dealt to ranks in snake order.";
  const std::int64_t wanted = read_slots(p, shape);
  const std::int64_t groups = p.integer("groups", "expert groups of the gate", 0, 1, 65'536, "the model's");
  const std::string mode = p.choice("mode", "`hierarchical` packs groups onto nodes first (SGLang's `deepseek_vec_hierarchical`), `global` ignores nodes",
                                    {"hierarchical", "global"}, "global");
  if (!p.usable()) return policy;
  if (mode == "global" && p.has("groups")) p.error("groups", "`groups` has no use in `mode: global`");
  if (mode == "hierarchical" && shape) {
    const std::int64_t g = groups ? groups : shape->expert_groups, slots = wanted ? wanted : shape->experts;
    if (shape->experts % g != 0) p.error("groups", fmt::format("{} experts do not divide into {} groups of equal size", shape->experts, g));
    if (g % shape->nodes != 0)
      p.error("mode", fmt::format("{} expert groups do not divide over {} nodes: `hierarchical` puts equally many groups on each", g, shape->nodes));
    if (shape->ranks % shape->nodes != 0)
      p.error("mode", fmt::format("{} ranks do not divide over {} nodes: `hierarchical` needs equal nodes", shape->ranks, shape->nodes));
    if (slots % shape->ranks != 0)
      p.error("slots", fmt::format("{} slots do not divide by {} ranks: `hierarchical` gives each rank equally many; {} would do", slots, shape->ranks,
                                   (slots + shape->ranks - 1) / shape->ranks * shape->ranks));
  }
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    const int nodes = mode == "hierarchical" ? problem.nodes : 1;
    const int node_groups = mode == "hierarchical" ? (groups ? static_cast<int>(groups) : problem.expert_groups) : 1;
    const std::vector<int> room = rooms(spread_slots(wanted ? wanted : problem.experts, problem.ranks));
    const auto node_ranks = static_cast<std::size_t>(problem.ranks / nodes), node_experts = static_cast<std::size_t>(problem.experts / nodes);
    std::vector<Placement> placements(problem.counts.size());
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
      const Matrix<std::int64_t> batches = problem.loads_by_batch(static_cast<std::size_t>(l));
      const std::vector<int> by_node = experts_by_node(problem.loads(static_cast<std::size_t>(l)), node_groups, nodes);
      std::vector<std::vector<int>> table(static_cast<std::size_t>(problem.ranks));
      for (std::size_t n = 0; n < static_cast<std::size_t>(nodes); ++n) {
        const std::span experts = std::span(by_node).subspan(n * node_experts, node_experts);
        const std::span node_room = std::span(room).subspan(n * node_ranks, node_ranks);
        Matrix<double> load(batches.rows, static_cast<std::int64_t>(node_experts));
        for (std::int64_t t = 0; t < load.rows; ++t)
          for (std::size_t i = 0; i < node_experts; ++i) load.row(t)[i] = static_cast<double>(batches(t, experts[i])) + 1e-4 * experts[i];
        const std::vector<int> count = replicate_by_step(load, std::accumulate(node_room.begin(), node_room.end(), std::int64_t{0}));
        deal_snake(load, count, experts, std::span(table).subspan(n * node_ranks, node_ranks), node_room);
      }
      placements[static_cast<std::size_t>(l)] = placement_of(table, problem.experts);
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
