#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/parallel.h"
#include "policies/placement/shared/slots.h"

namespace epsim::parts_placement {
namespace {

/// Where each item of a balanced packing went.
struct Packing {
  std::vector<int> pack;      ///< of each item
  std::vector<int> position;  ///< of each item in its pack, in fill order
};

/// Packs equally many items into each pack, heaviest first, each into the lightest pack with room (ties: lowest pack). With one item a pack nothing is sorted:
/// item i is pack i.
Packing pack_evenly(std::span<const float> weight, int packs) {
  const int items = static_cast<int>(weight.size()), room = items / packs;
  Packing out{std::vector<int>(weight.size()), std::vector<int>(weight.size())};
  std::vector<int> order(weight.size());
  std::iota(order.begin(), order.end(), 0);
  if (room == 1) {
    out.pack = order;
    return out;
  }
  // Not stable, on purpose: the original sorts with PyTorch, which on a CPU is libstdc++'s std::sort by this comparison. Replicas of one expert always tie, so
  // this decides their order; up to 16 items it is stable.
  std::sort(order.begin(), order.end(), [&](int a, int b) { return weight[static_cast<std::size_t>(a)] > weight[static_cast<std::size_t>(b)]; });
  std::vector<float> load(static_cast<std::size_t>(packs));
  std::vector<int> filled(static_cast<std::size_t>(packs));
  for (const int item : order) {
    std::size_t best = load.size();
    for (std::size_t p = 0; p < load.size(); ++p)
      if (filled[p] < room && (best == load.size() || load[p] < load[best])) best = p;
    out.pack[static_cast<std::size_t>(item)] = static_cast<int>(best);
    out.position[static_cast<std::size_t>(item)] = filled[best]++;
    load[best] += weight[static_cast<std::size_t>(item)];
  }
  return out;
}

/// One copy of an expert before it has a slot.
struct Copy {
  int expert;   ///< index among the node's experts
  int replica;  ///< 0 for the first
};

/// Gives `copies` copies to the experts: one each, then always one more to the expert whose copies carry the most (ties: lowest index).
std::vector<Copy> replicate(std::span<const float> weight, int copies, std::vector<int>& count) {
  const int experts = static_cast<int>(weight.size());
  std::vector<Copy> out;
  for (int e = 0; e < experts; ++e) out.push_back({e, 0});
  count.assign(weight.size(), 1);
  std::vector<float> share(weight.begin(), weight.end());
  while (static_cast<int>(out.size()) < copies) {
    const auto e = static_cast<std::size_t>(std::ranges::max_element(share) - share.begin());
    out.push_back({static_cast<int>(e), count[e]});
    share[e] = weight[e] / static_cast<float>(++count[e]);
  }
  return out;
}

struct Sizes {
  int experts, slots, ranks, nodes, groups;
};

/// DeepSeek's three steps: groups to nodes, replicas in each node, replicas to the node's ranks. float32 as in the original.
Placement balance(std::span<const std::int64_t> loads, const Sizes& z) {
  const int group_size = z.experts / z.groups, node_experts = z.experts / z.nodes, node_slots = z.slots / z.nodes, rank_slots = z.slots / z.ranks;
  std::vector<float> group_load(static_cast<std::size_t>(z.groups));
  for (int e = 0; e < z.experts; ++e) group_load[static_cast<std::size_t>(e / group_size)] += static_cast<float>(loads[static_cast<std::size_t>(e)]);
  const Packing groups = pack_evenly(group_load, z.nodes);

  std::vector<int> by_node(loads.size());  // experts renumbered node by node; inside a group the order stays
  for (int g = 0; g < z.groups; ++g) {
    const int place = groups.pack[static_cast<std::size_t>(g)] * (z.groups / z.nodes) + groups.position[static_cast<std::size_t>(g)];
    for (int i = 0; i < group_size; ++i) by_node[static_cast<std::size_t>(place * group_size + i)] = g * group_size + i;
  }

  Placement out;
  out.expert_of_slot.resize(static_cast<std::size_t>(z.slots));
  out.slots_of_expert.resize(loads.size());
  for (int r = 0; r <= z.ranks; ++r) out.first_slot.push_back(r * rank_slots);
  for (int n = 0; n < z.nodes; ++n) {
    const std::span experts = std::span(by_node).subspan(static_cast<std::size_t>(n * node_experts), static_cast<std::size_t>(node_experts));
    std::vector<float> weight, copy_weight;
    for (const int e : experts) weight.push_back(static_cast<float>(loads[static_cast<std::size_t>(e)]));
    std::vector<int> count;
    const std::vector<Copy> copies = replicate(weight, node_slots, count);
    for (const Copy& c : copies)
      copy_weight.push_back(weight[static_cast<std::size_t>(c.expert)] / static_cast<float>(count[static_cast<std::size_t>(c.expert)]));
    const Packing ranks = pack_evenly(copy_weight, z.ranks / z.nodes);
    for (std::size_t i = 0; i < copies.size(); ++i) {
      const int slot = n * node_slots + ranks.pack[i] * rank_slots + ranks.position[i];
      const int expert = experts[static_cast<std::size_t>(copies[i].expert)];
      out.expert_of_slot[static_cast<std::size_t>(slot)] = static_cast<std::uint16_t>(expert);
      out.slots_of_expert[static_cast<std::size_t>(expert)].push_back(Slot(slot));  // copies come in replica order
    }
  }
  return out;
}

}  // namespace

/// DeepSeek's Expert Parallelism Load Balancer (github.com/deepseek-ai/EPLB, 2025), to every index: float32 arithmetic and
/// the original's own order among ties (of loads: lowest index; of a sort: see `pack_evenly`).
/// Replicates the heaviest experts into redundant slots and packs the replicas onto ranks; the hierarchical form first packs expert groups onto nodes, so that
/// a token of a group-limited gate reaches few nodes. Nothing stops two replicas of one expert from meeting on a rank.
PlacementPolicy eplb(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary =
      "DeepSeek's EPLB: replicates the heaviest experts into redundant slots and packs replicas onto ranks by load (groups onto nodes first, where they "
      "divide).";
  const std::int64_t slots =
      p.integer("slots", "slots over all ranks", 0, 1, std::int64_t{1} << 20, "one redundant slot a rank: experts rounded up to the ranks, and one more a rank");
  const std::int64_t groups = p.integer("groups", "expert groups of the gate", 0, 1, 65'536, "the model's");
  const std::string mode =
      p.choice("mode", "`hierarchical` packs groups onto nodes first, `global` ignores nodes, `auto` is hierarchical where groups divide by nodes",
               {"auto", "hierarchical", "global"}, "auto");
  if (!p.usable()) return policy;

  const auto default_slots = [](int experts, int ranks) { return ((experts + ranks - 1) / ranks + 1) * ranks; };
  if (mode == "global" && p.has("groups")) p.error("groups", "`groups` has no use in `mode: global`");
  if (shape) {
    const std::int64_t g = groups ? groups : shape->expert_groups;
    if (mode != "global" && shape->experts % g != 0) p.error("groups", fmt::format("{} experts do not divide into {} groups of equal size", shape->experts, g));
    if (mode == "hierarchical" && g % shape->nodes != 0)
      p.error("mode", fmt::format("{} expert groups do not divide over {} nodes: `hierarchical` puts equally many groups on each node", g, shape->nodes));
    if (mode != "global" && g % shape->nodes == 0 && shape->ranks % shape->nodes != 0)
      p.error("mode",
              fmt::format("{} ranks do not divide over {} nodes: `hierarchical` needs equal nodes, `mode: global` does not", shape->ranks, shape->nodes));
    if (slots && slots < shape->experts)
      p.error("slots", fmt::format("{} slots are fewer than the {} experts: every expert needs a slot", slots, shape->experts));
    if (slots % shape->ranks != 0)
      p.error("slots", fmt::format("{} slots do not divide by {} ranks: EPLB gives each rank equally many; {} would do", slots, shape->ranks,
                                   (std::max<std::int64_t>(slots, shape->experts) + shape->ranks - 1) / shape->ranks * shape->ranks));
  }
  if (!p.usable()) return policy;

  policy.place = [=](const Problem& problem) {
    Sizes z{problem.experts, static_cast<int>(slots), problem.ranks, problem.nodes, groups ? static_cast<int>(groups) : problem.expert_groups};
    if (z.slots == 0) z.slots = default_slots(problem.experts, problem.ranks);
    if (mode == "global" || z.groups % z.nodes != 0) z.groups = z.nodes = 1;
    ensure(z.experts % z.groups == 0 && z.groups % z.nodes == 0 && z.ranks % z.nodes == 0 && z.slots % z.ranks == 0 && z.slots >= z.experts,
           "EPLB was made for the sizes it is given");
    std::vector<Placement> placements(problem.counts.size());
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
      const auto layer = static_cast<std::size_t>(l);
      placements[layer] = balance(problem.loads(layer), z);
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
