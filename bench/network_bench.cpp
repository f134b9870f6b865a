#include <cmath>
#include <string>

#include <benchmark/benchmark.h>

#include "base/rng.h"
#include "policies/bound.h"
#include "sim/engine.h"
#include "tests/support/machines.h"
#include "tests/support/schedules.h"

namespace epsim {
namespace {

enum Sizes { kUniform, kZipf, kLogNormal };

NetworkModel network_named(std::string_view name) {
  Params listing;
  return builtin_networks().find(name)->make(listing);
}

/// All pairs of ranks, 1 MiB in the mean: equal sizes, Zipf(1) by destination, or every pair its own.
Schedule all_to_all(int ranks, Sizes sizes) {
  std::vector<std::tuple<int, int, std::int64_t>> messages;
  Rng rng(1, Stream::test);
  double harmonic = 0;
  for (int d = 0; d < ranks; ++d) harmonic += 1.0 / (d + 1);
  for (int a = 0; a < ranks; ++a)
    for (int d = 0; d < ranks; ++d) {
      const double bytes = sizes == kUniform ? 1 : sizes == kZipf ? ranks / harmonic / (d + 1) : std::exp(rng.normal() - 0.5);
      messages.emplace_back(a, d, 1 + static_cast<std::int64_t>(bytes * 1048576));
    }
  return {ranks, {testing::transfer(ranks, {}, messages)}};
}

Topology machine(int ranks) { return testing::fat_tree(ranks / 16, 16, 16, 50e9, Time{500'000}); }

void all_to_all_on(benchmark::State& state, std::string_view network, Sizes sizes) {
  const auto ranks = static_cast<int>(state.range(0));
  const Topology topology = machine(ranks);
  const Schedule schedule = all_to_all(ranks, sizes);
  for (auto _ : state) benchmark::DoNotOptimize(simulate(schedule, topology, network_named(network), testing::nanoseconds(), Precision::bf16));
  state.SetItemsProcessed(state.iterations() * ranks * (ranks - 1));
}

void bound_of(benchmark::State& state) {
  const auto ranks = static_cast<int>(state.range(0));
  const Topology topology = machine(ranks);
  const Schedule schedule = all_to_all(ranks, kLogNormal);
  for (auto _ : state) benchmark::DoNotOptimize(lower_bound(schedule, topology, [](const KernelCall&) { return 0.0; }));
}

BENCHMARK_CAPTURE(all_to_all_on, ideal_uniform, "ideal", kUniform)->Arg(64)->Arg(1024)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(all_to_all_on, ideal_log_normal, "ideal", kLogNormal)->Arg(64)->Arg(1024)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(all_to_all_on, fair_uniform, "fair", kUniform)->Arg(64)->Arg(256)->Arg(1024)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(all_to_all_on, fair_zipf, "fair", kZipf)->Arg(64)->Arg(256)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(all_to_all_on, fair_log_normal, "fair", kLogNormal)->Arg(64)->Arg(128)->Unit(benchmark::kMillisecond);
BENCHMARK(bound_of)->Arg(64)->Arg(1024)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace epsim
