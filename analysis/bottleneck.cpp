#include "analysis/bottleneck.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

namespace epsim {
namespace {

/// "1.9x the mean"; what has no spread is said to have none.
std::string against_mean(double ratio) { return ratio < 1.005 ? "as are its peers" : fmt::format("{:.{}f}x the mean", ratio, ratio < 1.095 ? 2 : 1); }

/// Link names that already read as a noun ("uplink of node 3") take an article; "rank 5 -> nvswitch 0" is called a link.
std::string spoken(const std::string& link) { return (link.find("->") == std::string::npos ? "the " : "the link ") + link; }

/// The rank whose reduces take longest in a stage.
std::pair<Rank, double> slowest_reduce(const Experiment& experiment, const Schedule& schedule, Stage stage) {
  std::pair<Rank, double> slowest{Rank(0), 0};
  for (Rank r : ids<Rank>(schedule.ranks)) {
    double seconds = 0;
    for (const Phase& phase : schedule.phases)
      if (phase.kind == Phase::Kind::reduce && phase.stage == stage && phase.reduce_bytes[r] > 0)
        seconds += experiment.compute.reduce_seconds(experiment.topology.device(), phase.reduce_bytes[r]);
    if (seconds > slowest.second) slowest = {r, seconds};
  }
  return slowest;
}

std::string transfer_verdict(const Experiment& experiment, const LayerRun& run, Stage stage, double stage_s, const Traffic& traffic, const BusiestLink& busiest) {
  const std::string_view name = name_of(stage);
  const double span = transfer_span(run, stage);
  const auto [reducer, reduce_s] = slowest_reduce(experiment, run.schedule, stage);
  if (reduce_s > std::max(busiest.busy_s, traffic.latency_s)) return fmt::format("{} is bound by adding up rows on rank {}: {} of {}", name, reducer.value, format_seconds(reduce_s), format_seconds(stage_s));
  if (traffic.latency_s > busiest.busy_s)
    return fmt::format("{} is bound by latency: {} of {}; {} is busy for {}", name, format_seconds(traffic.latency_s), format_seconds(stage_s),
                       busiest.name.empty() ? "no link" : spoken(busiest.name), format_seconds(busiest.busy_s));
  std::string verdict = fmt::format("{} is bound by {}, {}", name, spoken(busiest.name), against_mean(busiest.busy_over_tier_mean));
  if (busiest.busy_s < 0.5 * span) verdict += fmt::format(" (busy {:.0f}% of the time)", 100 * busiest.busy_s / span);
  return verdict;
}

std::string compute_verdict(const Experiment& experiment, const LayerRun& run) {
  std::vector<double> kernel_s(run.schedule.ranks);
  for (const Timeline::Slice& s : run.timeline.slices) {
    const Phase& phase = run.schedule.phases[s.phase];
    if (phase.kind == Phase::Kind::kernel && phase.stage == Stage::compute) kernel_s[s.rank] += (s.end - s.begin).seconds();
  }
  const auto slowest = std::max_element(kernel_s.begin(), kernel_s.end());
  const Rank rank(slowest - kernel_s.begin());
  const double mean = std::accumulate(kernel_s.begin(), kernel_s.end(), 0.0) / (run.ranks_up > 0 ? run.ranks_up : static_cast<double>(kernel_s.size()));
  if (*slowest == 0) return "compute is bound by waiting: no kernel takes time";

  // What the rank's kernels would take with nothing to do, with arithmetic alone and with memory traffic alone.
  double launch_s = 0, arithmetic_s = 0, memory_s = 0;
  int calls = 0;
  const ComputeModel compute = at_speeds(experiment.compute, run.speeds);
  const auto seconds = [&](const KernelCall& call) { return compute.kernel_seconds(experiment.topology.device(), call, experiment.compute_precision); };
  for (const Phase& phase : run.schedule.phases)
    if (phase.kind == Phase::Kind::kernel && phase.stage == Stage::compute)
      for (const KernelCall& call : phase.kernels) {
        if (call.rank != rank || call.rows == 0) continue;
        launch_s += seconds({call.rank, call.slot, call.rows, 0, 0, 0});
        arithmetic_s += seconds({call.rank, call.slot, call.rows, call.flops, 0, 0});
        memory_s += seconds({call.rank, call.slot, call.rows, 0, call.weight_bytes, call.row_bytes});
        ++calls;
      }
  if (launch_s > 0.5 * *slowest)
    return fmt::format("compute is bound by kernel launches: {} calls on rank {}, {} of {}", calls, rank.value, format_seconds(launch_s), format_seconds(*slowest));
  std::string verdict = fmt::format("compute is bound by rank {}, {}", rank.value, against_mean(*slowest / mean));
  if (!run.speeds.empty() && run.speeds[rank] < 1) verdict += fmt::format(", which runs at {} of its speed", run.speeds[rank]);
  if (memory_s > arithmetic_s) verdict += " (its memory, not its arithmetic)";
  return verdict;
}

}  // namespace

std::string bottleneck(const Experiment& experiment, const LayerRun& run, const LayerMetrics& m, const Traffic& dispatch, const Traffic& combine) {
  if (m.layer_s <= 0) return "nothing to do";
  if (m.compute_s >= m.dispatch_s && m.compute_s >= m.combine_s) return compute_verdict(experiment, run);
  if (m.dispatch_s >= m.combine_s) return transfer_verdict(experiment, run, Stage::dispatch, m.dispatch_s, dispatch, m.dispatch_busiest);
  return transfer_verdict(experiment, run, Stage::combine, m.combine_s, combine, m.combine_busiest);
}

}  // namespace epsim
