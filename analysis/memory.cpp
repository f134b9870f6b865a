#include "analysis/memory.h"

#include <algorithm>

namespace epsim {
namespace {

/// Bytes that each phase's buffer holds on each rank: [phases][R].
std::vector<std::vector<double>> buffer_bytes(const LayerRun& run, Bytes held_row) {
  const Schedule& schedule = run.schedule;
  std::vector<std::vector<double>> bytes(schedule.phases.size(), std::vector<double>(schedule.ranks));
  std::vector<std::int64_t> sent(schedule.ranks);
  for (std::size_t p = 0; p < schedule.phases.size(); ++p) {
    const Phase& phase = schedule.phases[p];
    if (phase.kind == Phase::Kind::transfer) {
      for (int s = 0; s < schedule.ranks; ++s)
        for (int d = 0; d < schedule.ranks; ++d)
          if (s != d) bytes[p][d] += static_cast<double>(phase.rows(s, d) * phase.row_bytes);
    } else if (phase.kind == Phase::Kind::kernel) {
      for (const KernelCall& call : phase.kernels) bytes[p][call.rank] += static_cast<double>(call.rows * held_row);
    } else {
      // A schedule does not say how many sums a reduce makes. They are what the next transfers send, or at the end one for each home token.
      bool last = true;
      std::fill(sent.begin(), sent.end(), 0);
      for (const Phase& next : schedule.phases)
        if (next.kind == Phase::Kind::transfer && std::find(next.after.begin(), next.after.end(), static_cast<int>(p)) != next.after.end()) {
          last = false;
          for (int s = 0; s < schedule.ranks; ++s)
            for (const std::int64_t rows : next.rows.row(s)) sent[s] += rows;
        }
      const auto& first = run.plan.routing.first_token;
      for (int r = 0; r < schedule.ranks; ++r) bytes[p][r] = static_cast<double>((last ? first[r + 1] - first[r] : sent[r]) * held_row);
    }
  }
  return bytes;
}

}  // namespace

std::vector<MemoryUse> memory_use(const Experiment& experiment, const LayerRun& run) {
  const Pricing& pricing = experiment.pricing;
  const double value = bytes_per_value(pricing.weights);
  const double expert = experiment.model.expert_params() * value;
  const double shared = static_cast<double>(pricing.expert_matrices * pricing.hidden * pricing.shared_ffn) * value;
  const Bytes held_row = static_cast<Bytes>(static_cast<double>(pricing.hidden) * bytes_per_value(pricing.combine));
  const std::size_t phases = run.schedule.phases.size();

  std::vector<std::size_t> last_reader(phases);
  for (std::size_t p = 0; p < phases; ++p) {
    last_reader[p] = p;
    for (const int before : run.schedule.phases[p].after) last_reader[before] = std::max(last_reader[before], p);
  }
  const auto bytes = buffer_bytes(run, held_row);
  std::vector<MemoryUse> use(run.schedule.ranks);
  const auto& first = run.plan.routing.first_token;
  for (int r = 0; r < run.schedule.ranks; ++r) {
    const int slots = run.plan.placement.first_slot[r + 1] - run.plan.placement.first_slot[r];
    const double home = static_cast<double>((first[r + 1] - first[r]) * held_row);
    double fullest = home;
    for (std::size_t now = 0; now < phases; ++now) {
      double held = home;
      for (std::size_t p = 0; p <= now; ++p)
        if (last_reader[p] >= now) held += bytes[p][r];
      fullest = std::max(fullest, held);
    }
    use[r] = {slots * expert + shared, fullest};
  }
  return use;
}

}  // namespace epsim
