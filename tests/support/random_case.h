#pragma once
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/rng.h"
#include "policies/schedule.h"
#include "sim/experiment.h"
#include "tests/support/machines.h"
#include "tests/support/part_from_yaml.h"

namespace epsim::testing {

/// Ranks in nodes of different sizes, none empty, around one core.
inline Topology uneven_nodes(int ranks, int nodes, Rng& rng) {
  MachineBuilder b;
  b.device = part_from_yaml(builtin_clusters(), "{single_switch: {ranks: 1, device: h100}}").device();
  std::vector<int> sizes(static_cast<std::size_t>(nodes), 1);
  for (int r = nodes; r < ranks; ++r) ++sizes[rng.below(sizes.size())];
  std::vector<int> first{0};
  for (int n = 0; n < nodes; ++n) {
    first.push_back(first.back() + sizes[static_cast<std::size_t>(n)]);
    for (int r = first[static_cast<std::size_t>(n)]; r < first.back(); ++r) b.rank(n);
  }
  const int core = b.a_switch();
  for (int n = 0; n < nodes; ++n) {
    const int hub = b.a_switch();
    for (int r = first[static_cast<std::size_t>(n)]; r < first[static_cast<std::size_t>(n) + 1]; ++r) b.cable(r, hub, 4e11, Time{500'000});
    b.cable(hub, core, 5e10, Time{2'000'000});
  }
  return b.build();
}

/// A small random layer: topology (also with uneven nodes), routing, placement with replicas and uneven (also empty) ranks, capacity limits that drop, and the plan they give.
struct RandomCase {
  Topology topology;
  Plan plan;
  bool shared_expert = false;

  /// Every other case whose shared expert is computed by ranks that a token visits, or by any.
  static RandomCase shared_or_not(std::uint64_t seed) {
    RandomCase c(seed);
    if (seed / 2 % 2) c.share("waterfill: {min_tokens: 0}");
    return c;
  }

  explicit RandomCase(std::uint64_t seed, int max_nodes = 4, int max_ranks_per_node = 4) {
    Rng rng(seed, Stream::test);
    const auto pick = [&](int low, int high) { return low + static_cast<int>(rng.below(static_cast<std::uint64_t>(high - low + 1))); };
    const int nodes = pick(1, max_nodes), per_node = pick(1, max_ranks_per_node), ranks = nodes * per_node;
    const char* shapes[] = {"two_tier", "rail_fat_tree"};
    topology = part_from_yaml(builtin_clusters(), fmt::format("{{{}: {{nodes: {}, ranks_per_node: {}, device: h100}}}}", shapes[rng.below(2)], nodes, per_node));

    if (Rng uneven(seed, Stream::test, 2); uneven.below(3) == 0) topology = uneven_nodes(ranks, nodes, uneven);

    const int k = pick(1, 8), experts = std::max(k, pick(1, 24)), slots = experts + pick(0, 12);
    Routing routing;
    routing.experts = experts, routing.top_k = k;
    routing.first_token.push_back(0);
    for (int r = 0; r < ranks; ++r) routing.first_token.push_back(routing.first_token.back() + (rng.below(4) == 0 ? 0 : pick(1, 9)));
    std::vector<std::uint32_t> order(static_cast<std::size_t>(experts));
    for (std::int64_t t = 0; t < routing.tokens(); ++t) {
      rng.permutation(order);
      for (int c = 0; c < k; ++c) routing.expert.push_back(static_cast<std::uint16_t>(order[static_cast<std::size_t>(c)])), routing.weight.push_back(static_cast<float>(rng.uniform()));
    }

    std::vector<std::uint16_t> expert_of_slot;
    for (int s = 0; s < slots; ++s) expert_of_slot.push_back(static_cast<std::uint16_t>(s < experts ? s : pick(0, experts - 1)));
    std::vector<std::uint32_t> shuffle(static_cast<std::size_t>(slots));
    rng.permutation(shuffle);
    std::vector<std::uint16_t> placed;
    for (const std::uint32_t s : shuffle) placed.push_back(expert_of_slot[s]);
    std::vector<std::int32_t> first_slot{0};
    for (int r = 1; r < ranks; ++r) first_slot.push_back(pick(0, slots));
    first_slot.push_back(slots);
    std::sort(first_slot.begin(), first_slot.end());

    Capacity capacity;
    capacity.order = rng.below(2) == 0 ? Capacity::Order::position : Capacity::Order::probability;
    const int limit = pick(1, 12);
    capacity.limits = [=](const Matrix<std::int64_t>& choices, const Routing&) {
      Matrix<std::int64_t> limits(choices.rows, choices.columns);
      for (std::int64_t& l : limits.cells) l = limit;
      return limits;
    };
    shared_expert = rng.below(3) == 0;
    const ReplicaRule replica = part_from_yaml(builtin_replica_rules(), "round_robin", static_cast<const Shape*>(nullptr));
    plan = make_plan(3, std::move(routing), capacity, Placement::from_experts(std::move(placed), std::move(first_slot), experts), replica, topology);
  }

  /// Gives the layer a shared expert, which is computed where the rule says.
  void share(const std::string& rule) {
    shared_expert = true;
    settle_shared_expert(plan, part_from_yaml(builtin_shared_expert_rules(), rule, static_cast<const Shape*>(nullptr)), topology);
  }
  /// The ranks that a token's rows go to: those of its kept copies, in choice order, and last another one that computes its shared expert.
  std::vector<Rank> destinations(Rank home, std::int64_t token) const {
    std::vector<Rank> ranks;
    for (std::int64_t c = token * plan.routing.top_k; c < (token + 1) * plan.routing.top_k; ++c)
      if (const std::int32_t slot = plan.slot[static_cast<std::size_t>(c)]; slot >= 0) ranks.push_back(plan.placement.rank_of(Slot(slot)));
    if (!plan.shared_rank.empty() && plan.shared_rank[static_cast<std::size_t>(token)] != home) ranks.push_back(plan.shared_rank[static_cast<std::size_t>(token)]);
    return ranks;
  }

  Exchange exchange(const std::string& text) const { return part_from_yaml(builtin_exchanges(), text, static_cast<const Shape*>(nullptr)); }
  Pricing pricing() const {
    Pricing p;
    p.hidden = 8, p.expert_ffn = 16, p.shared_ffn = shared_expert ? 16 : 0;
    return p;
  }
};

/// Every exchange, with settings that change what it does. Made without a shape, one_sided_nvlink takes any machine.
inline const std::vector<std::string>& exchange_variants() {
  static const std::vector<std::string> all = {"{direct: {dedup: none}}",
                                               "{direct: {dedup: rank}}",
                                               "{hierarchical: {reduce_in_node: true}}",
                                               "{hierarchical: {reduce_in_node: false}}",
                                               "{hierarchical: {reduce_in_node: true, chunks: 3}}",
                                               "{hierarchical: {reduce_in_node: false, chunks: 2}}",
                                               "pairwise",
                                               "{pairwise: {dedup: rank}}",
                                               "{spread_out: {window: 2}}",
                                               "{spread_out: {dedup: rank, window: 5}}",
                                               "ring",
                                               "{ring: {dedup: rank, chunks: 2}}",
                                               "bruck",
                                               "{bruck: {dedup: rank, chunks: 4}}",
                                               "hierarchical_2d",
                                               "{hierarchical_2d: {chunks: 3}}",
                                               "low_latency",
                                               "one_sided_nvlink",
                                               "{allgather_reducescatter: {algorithm: direct}}",
                                               "{allgather_reducescatter: {algorithm: ring}}",
                                               "{direct: {chunks: 2}}",
                                               "{direct: {dedup: rank, chunks: 3}}",
                                               "{hierarchical: {reduce_in_node: true, chunks: 3, chunk_experts: true}}",
                                               "{hierarchical: {reduce_in_node: false, chunks: 2, chunk_experts: true}}",
                                               "{pairwise: {dedup: rank, chunks: 2}}",
                                               "{bruck: {chunks: 2, chunk_experts: true}}",
                                               "{low_latency: {chunks: 4}}",
                                               "{allgather_reducescatter: {algorithm: direct, chunks: 2}}",
                                               "{allgather_reducescatter: {algorithm: ring, chunks: 2}}",
                                               "{allgather_reducescatter: {algorithm: ring, chunks: 3, chunk_experts: true}}"};
  return all;
}

}  // namespace epsim::testing
