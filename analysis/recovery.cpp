#include "analysis/recovery.h"

#include <algorithm>

namespace epsim {

std::vector<Recovery> recoveries(const Experiment& experiment, const RunMetrics& run) {
  constexpr double kSettled = 1.05;
  std::vector<double> batch_s;
  if (run.layers.empty()) return {};
  const int first = run.layers.front().batch;
  batch_s.resize(static_cast<std::size_t>(run.batches()));
  for (const LayerMetrics& m : run.layers) batch_s[static_cast<std::size_t>(m.batch - first)] += m.layer_s + m.relocation.waited_s;
  const int end = first + run.batches();
  std::vector<Recovery> out;
  for (std::size_t i = 0; i < experiment.eras.size(); ++i) {
    const Era& era = experiment.eras[i];
    if (era.what.empty() || era.batch >= end) continue;
    Recovery r;
    r.batch = era.batch, r.what = era.what, r.ranks_up = era.ranks_up(experiment.topology.ranks());
    for (const LayerMetrics& m : run.layers)
      if (m.batch == era.batch) r.moved_bytes += m.relocation.bytes, r.restored_bytes += m.relocation.restored_bytes, r.waited_s += m.relocation.waited_s;
    if (era.batch > first) r.before_s = batch_s[static_cast<std::size_t>(era.batch - first) - 1];
    const int last = i + 1 < experiment.eras.size() ? std::min(end, experiment.eras[i + 1].batch) : end;
    const std::vector<double> of_era(batch_s.begin() + (era.batch - first), batch_s.begin() + (last - first));
    std::vector<double> sorted = of_era;
    std::ranges::sort(sorted);
    r.settled_s = (sorted[(sorted.size() - 1) / 2] + sorted[sorted.size() / 2]) / 2;
    for (const double s : of_era) {
      if (s <= kSettled * r.settled_s) break;
      ++r.recovery_batches, r.recovery_s += s - r.settled_s;
    }
    out.push_back(std::move(r));
  }
  return out;
}

}  // namespace epsim
