#pragma once
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "policies/placement.h"
#include "tests/support/random_case.h"
#include "tests/support/random_routing.h"

namespace epsim::testing {

/// A small random problem of placement with all that a policy can see: machine (also of uneven nodes), sources, batches, tokens, speeds and a placement in
/// force. Among them are one rank, one node, one expert, more ranks than experts, slots that do not divide by ranks, layers and whole problems without load,
/// and placements in force with other numbers of slots.
struct RandomProblem {
  Topology topology;
  Problem problem;
  int top_k = 1;
  int slots = 0;  ///< at least one an expert

  /// `layers`: at most so many layers; 1 batch each where `single_batch`.
  explicit RandomProblem(std::uint64_t seed, int max_layers = 3, bool single_batch = false) {
    Rng rng(seed, Stream::test, 1);
    const auto pick = [&](int low, int high) { return low + static_cast<int>(rng.below(static_cast<std::uint64_t>(high - low + 1))); };
    Problem& p = problem;
    p.nodes = rng.below(4) == 0 ? 1 : pick(1, 4);
    p.ranks = rng.below(6) == 0 ? p.nodes : p.nodes * pick(1, 16 / p.nodes);
    topology = rng.below(3) == 0 ? uneven_nodes(p.ranks, p.nodes, rng)
                                 : part_from_yaml(builtin_clusters(),
                                                  fmt::format("{{two_tier: {{nodes: {}, ranks_per_node: {}, device: h100}}}}", p.nodes, p.ranks / p.nodes));
    p.topology = &topology;
    p.expert_groups = 1 << rng.below(3);
    p.experts = rng.below(8) == 0 ? p.expert_groups : p.expert_groups * pick(1, 12);
    p.seed = seed;
    slots = p.experts + (rng.below(3) == 0 ? 0 : pick(0, 20));
    top_k = pick(1, std::min(8, p.experts));
    p.pricing.hidden = 64, p.pricing.expert_ffn = 128;
    p.expert_seconds = [](std::int64_t rows) { return rows == 0 ? 0 : 1e-6 + 1e-9 * static_cast<double>(rows); };
    p.batch_seconds = [this](std::size_t layer, const Routing&, const Placement& placement) {
      const std::vector<std::int64_t> loads = problem.loads(layer);
      double most = 0;
      for (const Rank r : ids<Rank>(problem.ranks)) {
        double sum = 0;
        for (std::int32_t s = placement.first_slot[r]; s < placement.first_slot[r + 1]; ++s) {
          const std::size_t e = placement.expert_of_slot[static_cast<std::size_t>(s)];
          sum += static_cast<double>(loads[e]) / static_cast<double>(placement.slots_of_expert[e].size());
        }
        most = std::max(most, sum);
      }
      return 1e-6 * most;
    };
    if (rng.below(3) == 0)
      for (int r = 0; r < p.ranks; ++r) p.speed.push_back(r == 0 ? 1 : 0.5 + 0.5 * rng.uniform());

    const int batches = single_batch ? 1 : pick(1, 4);
    const bool silent = rng.below(10) == 0;
    for (int l = pick(1, max_layers); l > 0; --l) {
      const auto layer = static_cast<std::uint64_t>(p.layers.size());
      p.layers.push_back(static_cast<int>(layer) * 3);
      Matrix<std::int64_t>& counts = p.counts.emplace_back(p.ranks, p.experts);
      Matrix<std::int64_t>& loads = p.batches.emplace_back(batches, p.experts);
      p.tokens.emplace_back();
      const bool empty = silent || rng.below(12) == 0;
      for (int b = 0; b < batches; ++b) {
        std::vector<std::int64_t> tokens;
        for (int r = 0; r < p.ranks; ++r) tokens.push_back(empty || rng.below(5) == 0 ? 0 : pick(0, 59));
        const auto routing = std::make_shared<Routing>(random_routing(tokens, p.experts, top_k, (seed * 16 + layer) * 16 + static_cast<std::uint64_t>(b)));
        for (int r = 0; r < p.ranks; ++r)
          for (std::int64_t i = routing->first_token[static_cast<std::size_t>(r)] * top_k; i < routing->first_token[static_cast<std::size_t>(r) + 1] * top_k;
               ++i) {
            ++counts(r, routing->expert[static_cast<std::size_t>(i)]);
            ++loads(b, routing->expert[static_cast<std::size_t>(i)]);
          }
        p.tokens.back().push_back(routing);
      }
    }
    if (rng.below(2) == 0) {
      const Shape s = shape();
      const std::string yaml = fmt::format("random: {{slots: {}}}", rng.below(3) == 0 ? p.experts + pick(0, 20) : slots);
      p.previous = part_from_yaml(builtin_placements(), yaml, &s).place(p);
    }
  }
  RandomProblem(const RandomProblem&) = delete;  // the problem points at the topology
  RandomProblem& operator=(const RandomProblem&) = delete;

  Shape shape() const {
    return {.experts = problem.experts, .top_k = top_k, .ranks = problem.ranks, .nodes = problem.nodes, .expert_groups = problem.expert_groups};
  }
  /// `slots`, rounded up to equally many for each rank.
  int even_slots() const { return (slots + problem.ranks - 1) / problem.ranks * problem.ranks; }
};

/// The problem placed by a policy with `slots` slots where it has that setting and can use the number, otherwise with its own; nothing where it refuses that
/// too.
inline std::vector<Placement> place_with_slots(const std::string& policy, const RandomProblem& c, int slots) {
  const Shape shape = c.shape();
  for (const std::string& yaml : {fmt::format("{}: {{slots: {}}}", policy, slots), policy}) {
    try {
      return part_from_yaml(builtin_placements(), yaml, &shape).place(c.problem);
    } catch (const InputError&) {
    }
  }
  return {};
}

}  // namespace epsim::testing
