// Speed of placement policies on loads that fall by rank of popularity as 1 / rank (Zipf), another order in each layer. Items are layers.
#include <benchmark/benchmark.h>

#include <cmath>

#include "base/rng.h"
#include "policies/placement.h"
#include "policies/solve/assignment.h"

namespace epsim {
namespace {

Problem zipf(int layers, int experts, int ranks, int nodes, int batches) {
  Problem p;
  p.experts = experts, p.ranks = ranks, p.nodes = nodes, p.expert_groups = 8, p.seed = 1;
  std::vector<std::uint32_t> order(static_cast<std::size_t>(experts));
  for (int l = 0; l < layers; ++l) {
    p.layers.push_back(l);
    p.counts.emplace_back(1, experts);
    p.batches.emplace_back(batches, experts);
    Rng rng(1, Stream::test, static_cast<std::uint64_t>(l));
    rng.permutation(order);
    for (int b = 0; b < batches; ++b)
      for (std::size_t e = 0; e < order.size(); ++e) {
        const auto load = static_cast<std::int64_t>(1e6 / (1 + order[e]) * std::exp(0.3 * rng.normal()));
        p.batches[static_cast<std::size_t>(l)].row(b)[e] = load;
        p.counts[static_cast<std::size_t>(l)].cells[e] += load;
      }
  }
  return p;
}

void run(benchmark::State& state, const Problem& problem, const std::string& yaml) {
  const Shape shape{.experts = problem.experts, .top_k = 8, .ranks = problem.ranks, .nodes = problem.nodes, .expert_groups = problem.expert_groups};
  Diagnostics problems;
  const PlacementPolicy policy = builtin_placements().make(parse_yaml(std::make_shared<SourceText>(SourceText{"bench", yaml})), problems, &shape);
  problems.check();
  for (auto _ : state) benchmark::DoNotOptimize(policy.place(problem));
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(problem.layers.size()));
}

/// DeepSeek-V3: 58 layers of 256 experts in 288 slots on 32 ranks of 4 nodes.
void deepseek(benchmark::State& state, const std::string& policy) {
  static const Problem problem = zipf(58, 256, 32, 4, 8);
  run(state, problem, policy + ": {slots: 288}");
}
/// 60 layers of 512 experts in 2,048 slots on 1,024 ranks of 128 nodes.
void large(benchmark::State& state, const std::string& policy) {
  static const Problem problem = zipf(60, 512, 1024, 128, 4);
  run(state, problem, policy + ": {slots: 2048}");
}
#define EPSIM_BENCH_PLACEMENT(policy)                                                                   \
  BENCHMARK_CAPTURE(deepseek, policy, #policy)->Unit(benchmark::kMillisecond)->MeasureProcessCPUTime(); \
  BENCHMARK_CAPTURE(large, policy, #policy)->Unit(benchmark::kMillisecond)->MeasureProcessCPUTime()
EPSIM_BENCH_PLACEMENT(eplb);
EPSIM_BENCH_PLACEMENT(tensorrt_llm);
EPSIM_BENCH_PLACEMENT(deepseek_vec);
EPSIM_BENCH_PLACEMENT(swift_balancer);
EPSIM_BENCH_PLACEMENT(flashlb);
EPSIM_BENCH_PLACEMENT(replicate_top_k);

/// As `large`, with what the policy sees besides: a machine of two tiers, loads of single sources, and 65,536 tokens that choose 8 experts each.
void seeing(benchmark::State& state, const std::string& policy, bool slots) {
  static const Topology machine = [] {
    Diagnostics problems;
    const std::string yaml = "two_tier: {nodes: 128, ranks_per_node: 8, device: h100}";
    return builtin_clusters().make(parse_yaml(std::make_shared<SourceText>(SourceText{"bench", yaml})), problems);
  }();
  static const Problem problem = [] {
    Problem p = zipf(60, 512, 1024, 128, 1);
    const auto routing = std::make_shared<Routing>();
    routing->experts = 512, routing->top_k = 8;
    for (int r = 0; r <= 1024; ++r) routing->first_token.push_back(64 * r);
    Matrix<std::int64_t> counts(1024, 512);
    for (int r = 0; r < 1024; ++r) {
      Rng rng(1, Stream::test, static_cast<std::uint64_t>(r));
      for (int i = 0; i < 64 * 8; ++i) {
        // One expert of each block of 64: distinct within a token.
        const auto e = static_cast<std::uint16_t>(i % 8 * 64 + static_cast<int>(std::min(rng.below(64), rng.below(64))));
        routing->expert.push_back(e);
        ++counts(r, e);
      }
    }
    p.topology = &machine;
    for (Matrix<std::int64_t>& c : p.counts) c = counts;
    p.tokens.assign(p.counts.size(), {routing});
    return p;
  }();
  run(state, problem, policy + (slots ? ": {slots: 2048}" : ""));
}
BENCHMARK_CAPTURE(seeing, topology_aware, "topology_aware", false)->Unit(benchmark::kMillisecond)->MeasureProcessCPUTime();
BENCHMARK_CAPTURE(seeing, cooccurrence, "cooccurrence", true)->Unit(benchmark::kMillisecond)->MeasureProcessCPUTime();
BENCHMARK_CAPTURE(seeing, affinity_eplb, "affinity_eplb", true)->Unit(benchmark::kMillisecond)->MeasureProcessCPUTime();

/// Overlaps of rows of few slots, as a redeployment has: small whole costs.
void assignment(benchmark::State& state) {
  Matrix<double> cost(state.range(0), state.range(0));
  Rng rng(1, Stream::test);
  for (double& c : cost.cells) c = 2 - static_cast<double>(rng.below(200) == 0);
  for (auto _ : state) benchmark::DoNotOptimize(least_cost_assignment(cost));
}
BENCHMARK(assignment)->Arg(64)->Arg(256)->Arg(1024)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace epsim
