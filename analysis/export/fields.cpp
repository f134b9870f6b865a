#include "analysis/export/fields.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace epsim {
namespace {

double heaviest(const LayerMetrics& m, double MemoryUse::*part) {
  double most = 0;
  for (const MemoryUse& use : m.memory) most = std::max(most, use.*part);
  return most;
}

/// Names of the device's numbers that nobody published or measured.
std::string assumed_facts(const Device& device) {
  const std::pair<const char*, const Fact*> facts[] = {
      {"flops_fp32", &device.flops_fp32},       {"flops_bf16", &device.flops_bf16},       {"flops_fp8", &device.flops_fp8},
      {"memory_bandwidth", &device.memory_bandwidth}, {"memory_bytes", &device.memory_bytes}, {"scale_up_bandwidth", &device.scale_up_bandwidth},
      {"scale_up_latency", &device.scale_up_latency}, {"nic_bandwidth", &device.nic_bandwidth}, {"nic_latency", &device.nic_latency},
      {"kernel_launch", &device.kernel_launch}, {"peak_share", &device.peak_share},       {"half_rows", &device.half_rows}};
  std::string names;
  for (const auto& [name, fact] : facts)
    if (fact->source.substr(0, 7) == "assumed") names += (names.empty() ? "" : ", ") + std::string(name);
  return names;
}

}  // namespace

const std::vector<LayerField>& layer_fields() {
  using M = LayerMetrics;
  static const std::vector<LayerField> fields = {
      {"batch", [](const M& m) -> FieldValue { return std::int64_t{m.batch}; }},
      {"layer", [](const M& m) -> FieldValue { return std::int64_t{m.layer}; }},
      {"dispatch_s", [](const M& m) -> FieldValue { return m.dispatch_s; }},
      {"compute_s", [](const M& m) -> FieldValue { return m.compute_s; }},
      {"combine_s", [](const M& m) -> FieldValue { return m.combine_s; }},
      {"layer_s", [](const M& m) -> FieldValue { return m.layer_s; }},
      {"lower_bound_s", [](const M& m) -> FieldValue { return m.lower_bound_s; }},
      {"arrival_error", [](const M& m) -> FieldValue { return m.arrival_error; }},
      {"tokens", [](const M& m) -> FieldValue { return m.tokens; }},
      {"choices", [](const M& m) -> FieldValue { return m.choices; }},
      {"copies", [](const M& m) -> FieldValue { return m.copies; }},
      {"dropped_choices", [](const M& m) -> FieldValue { return m.drops.choices; }},
      {"dropped_choice_rate", [](const M& m) -> FieldValue { return m.drop_rate(); }},
      {"partly_dropped_tokens", [](const M& m) -> FieldValue { return m.drops.partial_tokens; }},
      {"wholly_dropped_tokens", [](const M& m) -> FieldValue { return m.drops.total_tokens; }},
      {"dropped_weight", [](const M& m) -> FieldValue { return m.drops.weight; }},
      {"rank_load_max_over_mean", [](const M& m) -> FieldValue { return m.rank_load.max_over_mean; }},
      {"rank_load_max_minus_mean_over_mean", [](const M& m) -> FieldValue { return m.rank_load.max_minus_mean_over_mean; }},
      {"rank_load_mean_over_max", [](const M& m) -> FieldValue { return m.rank_load.mean_over_max; }},
      {"rank_load_max_plus_1_over_min_plus_1", [](const M& m) -> FieldValue { return m.rank_load.max_plus_1_over_min_plus_1; }},
      {"rank_load_std_over_mean", [](const M& m) -> FieldValue { return m.rank_load.std_over_mean; }},
      {"rank_load_max_minus_min_over_tokens", [](const M& m) -> FieldValue { return m.rank_load.max_minus_min_over_tokens; }},
      {"shared_visits", [](const M& m) -> FieldValue { return m.shared_visits; }},
      {"rank_rows_max_over_mean", [](const M& m) -> FieldValue { return m.rank_rows_max_over_mean; }},
      {"expert_load_max_over_mean", [](const M& m) -> FieldValue { return m.expert_load.max_over_mean; }},
      {"expert_load_max_minus_mean_over_mean", [](const M& m) -> FieldValue { return m.expert_load.max_minus_mean_over_mean; }},
      {"expert_load_mean_over_max", [](const M& m) -> FieldValue { return m.expert_load.mean_over_max; }},
      {"expert_load_max_plus_1_over_min_plus_1", [](const M& m) -> FieldValue { return m.expert_load.max_plus_1_over_min_plus_1; }},
      {"expert_load_std_over_mean", [](const M& m) -> FieldValue { return m.expert_load.std_over_mean; }},
      {"expert_load_max_minus_min_over_tokens", [](const M& m) -> FieldValue { return m.expert_load.max_minus_min_over_tokens; }},
      {"distinct_ranks_per_token", [](const M& m) -> FieldValue { return m.distinct_ranks_per_token; }},
      {"distinct_nodes_per_token", [](const M& m) -> FieldValue { return m.distinct_nodes_per_token; }},
      {"dispatch_bytes", [](const M& m) -> FieldValue { return m.dispatch_bytes; }},
      {"dispatch_cross_node_bytes", [](const M& m) -> FieldValue { return m.dispatch_cross_node_bytes; }},
      {"dispatch_busiest_link", [](const M& m) -> FieldValue { return m.dispatch_busiest.name; }},
      {"dispatch_busiest_link_bytes", [](const M& m) -> FieldValue { return m.dispatch_busiest.bytes; }},
      {"dispatch_busiest_link_busy_s", [](const M& m) -> FieldValue { return m.dispatch_busiest.busy_s; }},
      {"dispatch_busiest_link_over_tier_mean", [](const M& m) -> FieldValue { return m.dispatch_busiest.busy_over_tier_mean; }},
      {"dispatch_bottleneck_links", [](const M& m) -> FieldValue { return m.dispatch_busiest.peers; }},
      {"dispatch_transfer_s", [](const M& m) -> FieldValue { return m.dispatch_transfer_s; }},
      {"dispatch_efficiency", [](const M& m) -> FieldValue { return m.dispatch_busiest.efficiency(m.dispatch_transfer_s); }},
      {"combine_bytes", [](const M& m) -> FieldValue { return m.combine_bytes; }},
      {"combine_cross_node_bytes", [](const M& m) -> FieldValue { return m.combine_cross_node_bytes; }},
      {"combine_busiest_link", [](const M& m) -> FieldValue { return m.combine_busiest.name; }},
      {"combine_busiest_link_bytes", [](const M& m) -> FieldValue { return m.combine_busiest.bytes; }},
      {"combine_busiest_link_busy_s", [](const M& m) -> FieldValue { return m.combine_busiest.busy_s; }},
      {"combine_busiest_link_over_tier_mean", [](const M& m) -> FieldValue { return m.combine_busiest.busy_over_tier_mean; }},
      {"combine_bottleneck_links", [](const M& m) -> FieldValue { return m.combine_busiest.peers; }},
      {"combine_transfer_s", [](const M& m) -> FieldValue { return m.combine_transfer_s; }},
      {"combine_efficiency", [](const M& m) -> FieldValue { return m.combine_busiest.efficiency(m.combine_transfer_s); }},
      {"max_rank_weights_bytes", [](const M& m) -> FieldValue { return heaviest(m, &MemoryUse::weights_bytes); }},
      {"max_rank_activations_bytes", [](const M& m) -> FieldValue { return heaviest(m, &MemoryUse::activations_bytes); }},
      {"optimum_max_rank_copies", [](const M& m) -> FieldValue { return m.optimum.load.value; }},
      {"optimum_max_rank_copies_because", [](const M& m) -> FieldValue { return std::string(m.optimum.load.because); }},
      {"load_gap", [](const M& m) -> FieldValue { return gap(static_cast<double>(m.max_rank_copies()), m.optimum.load.value); }},
      {"optimum_busiest_links_s", [](const M& m) -> FieldValue { return m.optimum_links_s(); }},
      {"links_gap", [](const M& m) -> FieldValue { return gap(m.busiest_links_s(), m.optimum_links_s()); }},
      {"optimum_layer_s", [](const M& m) -> FieldValue { return m.optimum.layer_s.value; }},
      {"optimum_layer_s_because", [](const M& m) -> FieldValue { return std::string(m.optimum.layer_s.because); }},
      {"layer_gap", [](const M& m) -> FieldValue { return gap(m.layer_s, m.optimum.layer_s.value); }},
      {"ranks_up", [](const M& m) -> FieldValue { return std::int64_t{m.ranks_up}; }},
      {"rehomed_tokens", [](const M& m) -> FieldValue { return m.rehomed_tokens; }},
      {"lost_tokens", [](const M& m) -> FieldValue { return m.lost_tokens; }},
      {"changed_slots", [](const M& m) -> FieldValue { return m.relocation.changed_slots; }},
      {"moved_experts", [](const M& m) -> FieldValue { return m.relocation.moved_experts; }},
      {"moved_bytes", [](const M& m) -> FieldValue { return m.relocation.bytes; }},
      {"moving_peers", [](const M& m) -> FieldValue { return m.relocation.peers; }},
      {"restored_experts", [](const M& m) -> FieldValue { return m.relocation.restored_experts; }},
      {"restored_bytes", [](const M& m) -> FieldValue { return m.relocation.restored_bytes; }},
      {"moving_s", [](const M& m) -> FieldValue { return m.relocation.moving_s; }},
      {"waited_s", [](const M& m) -> FieldValue { return m.relocation.waited_s; }},
      {"slowed_s", [](const M& m) -> FieldValue { return m.relocation.slowed_s; }},
      {"paid_s", [](const M& m) -> FieldValue { return m.relocation.paid_s; }},
      {"gained_s", [](const M& m) -> FieldValue { return m.relocation.gained_s; }},
      {"bottleneck", [](const M& m) -> FieldValue { return m.bottleneck; }},
  };
  return fields;
}

FieldValue break_even_field(const BreakEven& b) {
  const std::optional<double> batches = b.batches();
  return batches && std::isfinite(*batches) ? FieldValue(*batches) : FieldValue(std::string(batches ? "never" : ""));
}

std::vector<std::pair<std::string, std::string>> trust(const Experiment& experiment) {
  const Device& device = experiment.topology.device();
  const std::string assumed = assumed_facts(device);
  const std::string times = assumed.empty() ? fmt::format("modelled, calibrated by parts: every value of the device {} is published or measured, the layer as a whole is not checked against it", device.name)
                                            : fmt::format("modelled, assumed: the device {} has values without a measurement ({})", device.name, assumed);
  return {{"counts", "exact: tokens, choices, copies, drops, loads, rows and bytes are counted from the routing and the plan"},
          {"times", times},
          {"lower_bound", "bound: no schedule of these bytes and kernels on this device and cluster beats it; rests on the same device values as the times"},
          {"memory", "exact count of weights and rows; assumed: a buffer is freed after its last reader and kernels need no room of their own"}};
}

std::string csv_field(const FieldValue& value) {
  if (const auto* count = std::get_if<std::int64_t>(&value)) return std::to_string(*count);
  if (const auto* number = std::get_if<double>(&value)) return format_number(*number);
  const std::string& text = std::get<std::string>(value);
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + '"';
}

}  // namespace epsim
