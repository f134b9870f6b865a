#include "policies/placement/shared/eplb_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/parallel.h"
#include "policies/placement/shared/copies.h"

namespace epsim {

EplbSettings read_eplb(Params& p) {
  EplbSettings s;
  s.slots = p.integer("slots", "slots over all ranks", 0, 1, std::int64_t{1} << 20,
                      "one redundant slot a rank: experts rounded up to the ranks, and one more a rank");
  s.groups = p.integer("groups", "expert groups of the gate", 0, 1, 65'536, "the model's");
  s.mode = p.choice("mode", "`hierarchical` packs groups onto nodes first, `global` ignores nodes, `auto` is hierarchical where groups divide by nodes",
                    {"auto", "hierarchical", "global"}, "auto");
  return s;
}

void check_eplb(Params& p, const EplbSettings& s, const Shape* shape) {
  if (s.mode == "global" && p.has("groups")) p.error("groups", "`groups` has no use in `mode: global`");
  if (!shape) return;
  const std::int64_t g = s.groups ? s.groups : shape->expert_groups;
  if (s.mode != "global" && shape->experts % g != 0) p.error("groups", fmt::format("{} experts do not divide into {} groups of equal size", shape->experts, g));
  if (s.mode == "hierarchical" && g % shape->nodes != 0)
    p.error("mode", fmt::format("{} expert groups do not divide over {} nodes: `hierarchical` puts equally many groups on each node", g, shape->nodes));
  if (s.mode != "global" && g % shape->nodes == 0 && shape->ranks % shape->nodes != 0)
    p.error("mode", fmt::format("{} ranks do not divide over {} nodes: `hierarchical` needs equal nodes, `mode: global` does not", shape->ranks, shape->nodes));
  if (s.slots && s.slots < shape->experts)
    p.error("slots", fmt::format("{} slots are fewer than the {} experts: every expert needs a slot", s.slots, shape->experts));
  if (s.slots % shape->ranks != 0)
    p.error("slots", fmt::format("{} slots do not divide by {} ranks: EPLB gives each rank equally many; {} would do", s.slots, shape->ranks,
                                 (std::max<std::int64_t>(s.slots, shape->experts) + shape->ranks - 1) / shape->ranks * shape->ranks));
}

EplbSizes eplb_sizes(const EplbSettings& s, const Problem& problem) {
  EplbSizes z{problem.experts, static_cast<int>(s.slots), problem.ranks, problem.nodes, s.groups ? static_cast<int>(s.groups) : problem.expert_groups};
  if (z.slots == 0) z.slots = ((z.experts + z.ranks - 1) / z.ranks + 1) * z.ranks;
  if (s.mode == "global" || z.groups % z.nodes != 0) z.groups = z.nodes = 1;
  return z;
}

EvenPacking pack_evenly(std::span<const float> weight, int packs) {
  const int items = static_cast<int>(weight.size()), room = items / packs;
  EvenPacking out{std::vector<int>(weight.size()), std::vector<int>(weight.size())};
  std::vector<int> order(weight.size());
  std::iota(order.begin(), order.end(), 0);
  if (room == 1) {
    out.pack = order;
    return out;
  }
  // Not stable, on purpose: the original sorts with PyTorch, which on a CPU is libstdc++'s std::sort by this comparison. Replicas of one expert always tie, so
  // this decides their order; up to 16 items it is stable.
  std::sort(order.begin(), order.end(), [&](int a, int b) { return weight[static_cast<std::size_t>(a)] > weight[static_cast<std::size_t>(b)]; });
  std::vector<float> sorted, load(static_cast<std::size_t>(packs));
  std::vector<int> left(load.size(), room), filled(load.size());
  for (const int item : order) sorted.push_back(weight[static_cast<std::size_t>(item)]);
  const std::vector<int> pack = pack_lightest(std::span<const float>(sorted), load, left);
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto item = static_cast<std::size_t>(order[i]);
    out.pack[item] = pack[i];
    out.position[item] = filled[static_cast<std::size_t>(pack[i])]++;
  }
  return out;
}

std::vector<int> experts_by_node(std::span<const std::int64_t> loads, int groups, int nodes) {
  const int group_size = static_cast<int>(loads.size()) / groups;
  std::vector<float> group_load(static_cast<std::size_t>(groups));
  for (std::size_t e = 0; e < loads.size(); ++e) group_load[e / static_cast<std::size_t>(group_size)] += static_cast<float>(loads[e]);
  const EvenPacking packing = pack_evenly(group_load, nodes);
  std::vector<int> by_node(loads.size());
  for (int g = 0; g < groups; ++g) {
    const int place = packing.pack[static_cast<std::size_t>(g)] * (groups / nodes) + packing.position[static_cast<std::size_t>(g)];
    for (int i = 0; i < group_size; ++i) by_node[static_cast<std::size_t>(place * group_size + i)] = g * group_size + i;
  }
  return by_node;
}

Placement eplb_layer(std::span<const std::int64_t> loads, const EplbSizes& z) {
  const int node_experts = z.experts / z.nodes, node_slots = z.slots / z.nodes, rank_slots = z.slots / z.ranks;
  const std::vector<int> by_node = experts_by_node(loads, z.groups, z.nodes);
  Placement out;
  out.expert_of_slot.resize(static_cast<std::size_t>(z.slots));
  out.slots_of_expert.resize(loads.size());
  for (int r = 0; r <= z.ranks; ++r) out.first_slot.push_back(r * rank_slots);
  for (int n = 0; n < z.nodes; ++n) {
    const std::span experts = std::span(by_node).subspan(static_cast<std::size_t>(n * node_experts), static_cast<std::size_t>(node_experts));
    std::vector<float> weight, copy_weight;
    for (const int e : experts) weight.push_back(static_cast<float>(loads[static_cast<std::size_t>(e)]));
    const std::vector<int> copies = replicate(std::span<const float>(weight), node_slots);  // by index in the node
    const std::vector<int> count = count_copies(copies, weight.size());
    for (const int e : copies) copy_weight.push_back(weight[static_cast<std::size_t>(e)] / static_cast<float>(count[static_cast<std::size_t>(e)]));
    const EvenPacking ranks = pack_evenly(copy_weight, z.ranks / z.nodes);
    for (std::size_t i = 0; i < copies.size(); ++i) {
      const int slot = n * node_slots + ranks.pack[i] * rank_slots + ranks.position[i];
      const int expert = experts[static_cast<std::size_t>(copies[i])];
      out.expert_of_slot[static_cast<std::size_t>(slot)] = static_cast<std::uint16_t>(expert);
      out.slots_of_expert[static_cast<std::size_t>(expert)].push_back(Slot(slot));  // copies come in replica order
    }
  }
  return out;
}

std::vector<Placement> eplb_all_layers(const Problem& problem, const EplbSizes& z) {
  ensure(z.experts % z.groups == 0 && z.groups % z.nodes == 0 && z.ranks % z.nodes == 0 && z.slots % z.ranks == 0 && z.slots >= z.experts,
         "EPLB was made for the sizes it is given");
  std::vector<Placement> placements(problem.counts.size());
  parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
    const auto layer = static_cast<std::size_t>(l);
    placements[layer] = eplb_layer(problem.loads(layer), z);
  });
  return placements;
}

}  // namespace epsim
