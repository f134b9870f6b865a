#include <algorithm>
#include <cmath>
#include <ostream>

#include <fmt/format.h>
#include <fmt/ostream.h>

#include "analysis/export/fields.h"
#include "analysis/export/table.h"
#include "analysis/export/writers.h"
#include "analysis/recovery.h"

namespace epsim {
namespace {

constexpr std::size_t kMostRows = 12;  ///< more layers than this are summed up

std::string percent(double share) { return share == 0 ? "0" : share < 0.001 ? "<0.1%" : fmt::format("{:.1f}%", 100 * share); }

void write_layers(std::ostream& out, const RunMetrics& run) {
  const bool batches = run.batches() > 1;
  TextTable table({false, false, false, false, false, false, false, false, true});
  table.add({batches ? "batch:layer" : "layer", "dispatch", "compute", "combine", "layer time", "bound", "max/mean", "dropped", "bottleneck"});
  for (const LayerMetrics& m : run.layers)
    table.add({batches ? fmt::format("{}:{}", m.batch, m.layer) : std::to_string(m.layer), format_seconds(m.dispatch_s), format_seconds(m.compute_s), format_seconds(m.combine_s), format_seconds(m.layer_s),
               format_seconds(m.lower_bound_s), fmt::format("{:.2f}", m.rank_load.max_over_mean), percent(m.drop_rate()), m.bottleneck});
  table.write(out);
}

/// Smallest, median, mean and largest of each figure over the layers; each column by itself.
void write_spread(std::ostream& out, const RunMetrics& run) {
  using Format = std::string (*)(double);
  using Value = double (*)(const LayerMetrics&);
  const Format ratio = [](double v) { return fmt::format("{:.2f}", v); };
  const std::pair<Value, Format> columns[] = {{[](const LayerMetrics& m) { return m.dispatch_s; }, format_seconds},
                                              {[](const LayerMetrics& m) { return m.compute_s; }, format_seconds},
                                              {[](const LayerMetrics& m) { return m.combine_s; }, format_seconds},
                                              {[](const LayerMetrics& m) { return m.layer_s; }, format_seconds},
                                              {[](const LayerMetrics& m) { return m.lower_bound_s; }, format_seconds},
                                              {[](const LayerMetrics& m) { return m.rank_load.max_over_mean; }, ratio},
                                              {[](const LayerMetrics& m) { return m.drop_rate(); }, percent}};
  std::vector<std::vector<std::string>> rows = {{"least"}, {"median"}, {"mean"}, {"most"}};
  for (const auto& [value, format] : columns) {
    std::vector<double> values;
    double sum = 0;
    for (const LayerMetrics& m : run.layers) values.push_back(value(m)), sum += values.back();
    std::sort(values.begin(), values.end());
    const std::size_t n = values.size();
    rows[0].push_back(format(values.front()));
    rows[1].push_back(format((values[(n - 1) / 2] + values[n / 2]) / 2));
    rows[2].push_back(format(sum / static_cast<double>(n)));
    rows[3].push_back(format(values.back()));
  }
  TextTable table({true, false, false, false, false, false, false, false});
  table.add({run.batches() > 1 ? fmt::format("{} batches x layers", run.layers.size()) : fmt::format("{} layers", run.layers.size()), "dispatch", "compute", "combine", "layer time", "bound", "max/mean", "dropped"});
  for (auto& row : rows) table.add(std::move(row));
  table.write(out);
}

/// One line a stage: its busiest link, and how far the stage's transfers are from the time that link needs.
void write_exchanges(std::ostream& out, const LayerMetrics& m) {
  const auto line = [&](std::string_view stage, const BusiestLink& busiest, double transfer_s) {
    if (busiest.name.empty()) return;
    fmt::print(out, "  {}: {}{} busy for {}, {} of the {} that its transfers take\n", stage, busiest.name, busiest.peers > 1 ? fmt::format(" and {} more", busiest.peers - 1) : "",
               format_seconds(busiest.busy_s), percent(busiest.efficiency(transfer_s)), format_seconds(transfer_s));
  };
  line("dispatch", m.dispatch_busiest, m.dispatch_transfer_s);
  line("combine", m.combine_busiest, m.combine_transfer_s);
}

/// A line an event: what moved and how long layers waited in its first batch, and when time was steady again.
void write_events(std::ostream& out, const Experiment& experiment, const RunMetrics& run) {
  const std::vector<Recovery> events = recoveries(experiment, run);
  if (events.empty()) return;
  TextTable table({false, true, false, false, false, false, false, false, false});
  table.add({"batch", "event", "ranks", "moved", "restored", "waited", "a batch before", "and after", "recovered after"});
  for (const Recovery& r : events)
    table.add({std::to_string(r.batch), r.what, std::to_string(r.ranks_up), format_bytes(static_cast<double>(r.moved_bytes)), format_bytes(static_cast<double>(r.restored_bytes)), format_seconds(r.waited_s),
               r.before_s > 0 ? format_seconds(r.before_s) : "", format_seconds(r.settled_s), fmt::format("{} {}", r.recovery_batches, r.recovery_batches == 1 ? "batch" : "batches")});
  out << '\n';
  table.write(out);
  out << "  moved, restored, waited: all of the batch, whatever for; ordinary rebalancing in it is not told apart\n";
}

/// How many layers each stage is the longest of.
std::string longest_stages(const RunMetrics& run) {
  int dispatch = 0, compute = 0, combine = 0;
  for (const LayerMetrics& m : run.layers) ++(m.compute_s >= m.dispatch_s && m.compute_s >= m.combine_s ? compute : m.dispatch_s >= m.combine_s ? dispatch : combine);
  std::string text;
  for (const auto& [name, count] : {std::pair("dispatch", dispatch), std::pair("compute", compute), std::pair("combine", combine)})
    if (count > 0) text += fmt::format("{}{} in {}", text.empty() ? "" : ", ", name, count);
  return text;
}

}  // namespace

void write_text(std::ostream& out, const Experiment& experiment, const RunMetrics& run) {
  const Topology& topology = experiment.topology;
  fmt::print(out, "{}: {} on {} {} in {} {} of {}, {} tokens a layer, seed {}\n", experiment.name, experiment.model.name, topology.ranks(), topology.ranks() == 1 ? "rank" : "ranks", topology.nodes(),
             topology.nodes() == 1 ? "node" : "nodes", topology.device().name, experiment.source.tokens(), experiment.seed);
  for (const char* kind : {"capacity", "placement", "replica", "exchange", "network", "compute"})
    fmt::print(out, "{}{} {}", std::string_view(kind) == "capacity" ? "  " : " | ", kind, experiment.part(kind));
  if (experiment.shared_expert.choose) fmt::print(out, " | shared_expert {}", experiment.part("shared_expert"));
  out << "\n\n";
  if (run.layers.empty()) {
    out << "  no layers\n";
    return;
  }
  if (run.layers.size() <= kMostRows)
    write_layers(out, run);
  else
    write_spread(out, run);

  write_events(out, experiment, run);

  double dispatch = 0, compute = 0, combine = 0, waited = 0, bound = 0, weights = 0, activations = 0;
  Relocation moved;
  DropCounts drops;
  std::int64_t choices = 0;
  for (const LayerMetrics& m : run.layers) {
    dispatch += m.dispatch_s, compute += m.compute_s, combine += m.combine_s, bound += m.lower_bound_s;
    waited += m.relocation.waited_s;
    moved.moved_experts += m.relocation.moved_experts, moved.bytes += m.relocation.bytes, moved.slowed_s += m.relocation.slowed_s;
    choices += m.choices;
    drops.choices += m.drops.choices, drops.partial_tokens += m.drops.partial_tokens, drops.total_tokens += m.drops.total_tokens, drops.weight += m.drops.weight;
    double layer_weights = 0;
    for (const MemoryUse& use : m.memory) layer_weights = std::max(layer_weights, use.weights_bytes), activations = std::max(activations, use.activations_bytes);
    weights += layer_weights;
  }
  const int batches = run.batches();
  fmt::print(out, "\n  total {} = dispatch {} + compute {} + combine {}{}; lower bound {}\n", format_seconds(run.total_s), format_seconds(dispatch), format_seconds(compute),
             format_seconds(combine), waited > 0 ? fmt::format(" + waiting for weights {}", format_seconds(waited)) : "", format_seconds(bound));
  if (batches > 1) fmt::print(out, "  {} batches, {} each in the mean\n", batches, format_seconds(run.total_s / batches));
  if (run.layers.size() > 1)
    fmt::print(out, "  slowest layer {}{}: {}\n  longest stage: {} of {} layers\n", run.slowest_layer, batches > 1 ? fmt::format(" in batch {}", run.slowest_batch) : "", run.bottleneck, longest_stages(run),
               run.layers.size());
  else
    fmt::print(out, "  {}\n", run.bottleneck);
  for (const LayerMetrics& m : run.layers)
    if (m.layer == run.slowest_layer && m.batch == run.slowest_batch) write_exchanges(out, m);
  if (moved.moved_experts > 0)
    fmt::print(out, "  placed anew: {} {} moved, {}; layers were slowed by {} beside it\n", moved.moved_experts, moved.moved_experts == 1 ? "expert" : "experts", format_bytes(static_cast<double>(moved.bytes)), format_seconds(moved.slowed_s));
  if (const std::optional<double> pays = run.break_even.batches(); pays && std::isfinite(*pays)) {
    const std::string number = fmt::format("{:.3g}", *pays);
    const auto moves = static_cast<double>(run.break_even.moves);
    fmt::print(out, "  a move has paid for itself after {} {}: {} for {} a batch\n", number, number == "1" ? "batch" : "batches", format_seconds(run.break_even.cost_s / moves), format_seconds(run.break_even.gain_s / moves));
  } else if (pays) {
    out << "  moves never pay for themselves: layers are no quicker after them\n";
  }
  if (drops.choices > 0)
    fmt::print(out, "  dropped {} of {} choices ({}): {} {} lost some, {} lost all; combine weight {:.4g}\n", drops.choices, choices,
               percent(static_cast<double>(drops.choices) / static_cast<double>(choices)), drops.partial_tokens, drops.partial_tokens == 1 ? "token" : "tokens", drops.total_tokens, drops.weight);
  else
    fmt::print(out, "  dropped none of {} choices\n", choices);
  const double memory = topology.device().memory_bytes.value, needed = weights / batches + activations;
  fmt::print(out, "  memory of the fullest rank: weights {} ({} {}), activations {}{}\n\n  how far to trust these figures\n", format_bytes(weights / batches), run.layers.size() / static_cast<std::size_t>(batches),
             run.layers.size() == static_cast<std::size_t>(batches) ? "layer" : "layers", format_bytes(activations),
             memory > 0 && needed > memory ? fmt::format(", of {} that {} has: does not fit", format_bytes(memory), topology.device().name) : "");
  TextTable labels({true, true});
  for (const auto& [group, label] : trust(experiment)) labels.add({group, label});
  labels.write(out, 4);
}

}  // namespace epsim
