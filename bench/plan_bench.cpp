// Speed of planning: from routed choices to a plan, and its digest. Items are choices.
#include <benchmark/benchmark.h>

#include <algorithm>

#include "base/parallel.h"
#include "base/rng.h"
#include "policies/plan.h"

namespace epsim {
namespace {

constexpr int kExperts = 256, kTopK = 8, kTokensPerRank = 4096;

/// `ranks` x 4,096 tokens that choose 8 of 256 experts, skewed, with redundant slots for the first experts on every rank.
Routing routed(int ranks) {
  Routing routing;
  routing.experts = kExperts, routing.top_k = kTopK;
  for (int r = 0; r <= ranks; ++r) routing.first_token.push_back(std::int64_t{r} * kTokensPerRank);
  routing.expert.resize(static_cast<std::size_t>(routing.tokens()) * kTopK);
  routing.weight.resize(routing.expert.size());
  parallel_for(ranks, [&](std::int64_t r) {
    Rng rng(1, Stream::test, static_cast<std::uint64_t>(r));
    for (std::int64_t i = r * kTokensPerRank * kTopK; i < (r + 1) * kTokensPerRank * kTopK; ++i) {
      // One expert of each block of 32: distinct within a token.
      const auto block = static_cast<std::uint64_t>(i % kTopK), within = std::min(rng.below(32), rng.below(32));
      routing.expert[static_cast<std::size_t>(i)] = static_cast<std::uint16_t>(block * 32 + within);
      routing.weight[static_cast<std::size_t>(i)] = static_cast<float>(rng.uniform());
    }
  });
  return routing;
}

Placement redundant(int ranks) {
  const int per_rank = (kExperts + ranks - 1) / ranks + 1;
  std::vector<std::uint16_t> experts;
  std::vector<std::int32_t> first = {0};
  for (int r = 0; r < ranks; ++r) {
    for (int s = 0; s < per_rank; ++s) experts.push_back(static_cast<std::uint16_t>(experts.size() % kExperts));
    first.push_back(static_cast<std::int32_t>(experts.size()));
  }
  return Placement::from_experts(std::move(experts), std::move(first), kExperts);
}

template <class Catalog>
auto part(const Catalog& catalog, const std::string& yaml) {
  Diagnostics problems;
  auto made = catalog.make(parse_yaml(std::make_shared<SourceText>(SourceText{"bench", yaml})), problems, nullptr);
  problems.check();
  return made;
}

void make(benchmark::State& state, const std::string& capacity_yaml) {
  const int ranks = static_cast<int>(state.range(0));
  const Capacity capacity = part(builtin_capacities(), capacity_yaml);
  const ReplicaRule rule = part(builtin_replica_rules(), "round_robin");
  const Placement placement = redundant(ranks);
  Routing routing = routed(ranks);
  for (auto _ : state) {
    Plan plan = make_plan(0, std::move(routing), capacity, placement, rule, {});
    benchmark::DoNotOptimize(plan.slot.data());
    routing = std::move(plan.routing);
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(routing.expert.size()));
}

void plan_dropless(benchmark::State& state) { make(state, "dropless"); }
void plan_by_position(benchmark::State& state) { make(state, "megatron: {factor: 1, order: position}"); }
void plan_by_probability(benchmark::State& state) { make(state, "megatron: {factor: 1}"); }
BENCHMARK(plan_dropless)->Arg(64)->Arg(1024)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(plan_by_position)->Arg(64)->Arg(1024)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(plan_by_probability)->Arg(64)->Arg(1024)->Unit(benchmark::kMillisecond)->UseRealTime();

void plan_digest(benchmark::State& state) {
  const Plan plan = make_plan(0, routed(static_cast<int>(state.range(0))), part(builtin_capacities(), "dropless"), redundant(static_cast<int>(state.range(0))),
                              part(builtin_replica_rules(), "round_robin"), {});
  for (auto _ : state) benchmark::DoNotOptimize(plan.digest());
}
BENCHMARK(plan_digest)->Arg(1024)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace epsim
