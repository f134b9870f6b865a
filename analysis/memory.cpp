#include "analysis/memory.h"

#include <algorithm>

namespace epsim {
namespace {

/// Bytes that each phase's buffer holds on each rank: [phases][R].
std::vector<std::vector<double>> buffer_bytes(const LayerRun& run, Bytes held_row) {
  const Schedule& schedule = run.schedule;
  std::vector<std::vector<double>> bytes(schedule.phases.size(), std::vector<double>(schedule.ranks));
  for (std::size_t p = 0; p < schedule.phases.size(); ++p) {
    const Phase& phase = schedule.phases[p];
    for (const RowTable::Entry& e : phase.rows.all()) bytes[p][e.destination] += static_cast<double>(e.rows * phase.row_bytes);
    for (const KernelCall& call : phase.kernels) bytes[p][call.rank] += static_cast<double>(call.rows * held_row);
    for (std::size_t r = 0; r < phase.reduced_rows.size(); ++r) bytes[p][r] += static_cast<double>(phase.reduced_rows[r] * held_row);
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
  std::vector<std::vector<std::size_t>> read_last(phases);  // [phases] the phases whose buffers are let go after it
  for (std::size_t p = 0; p < phases; ++p) read_last[last_reader[p]].push_back(p);
  const auto bytes = buffer_bytes(run, held_row);
  std::vector<MemoryUse> use(run.schedule.ranks);
  const auto& first = run.plan.routing.first_token;
  for (int r = 0; r < run.schedule.ranks; ++r) {
    const int slots = run.plan.placement.first_slot[r + 1] - run.plan.placement.first_slot[r];
    const double home = static_cast<double>((first[r + 1] - first[r]) * held_row);
    // Counts of bytes are whole numbers far below 2^53: adding and taking away leaves no rest.
    double held = home, fullest = home;
    for (std::size_t now = 0; now < phases; ++now) {
      held += bytes[now][r];
      fullest = std::max(fullest, held);
      for (const std::size_t p : read_last[now]) held -= bytes[p][r];
    }
    use[r] = {slots * expert + shared, fullest, slots};
  }
  return use;
}

}  // namespace epsim
