#include <algorithm>

#include "analysis/export/writers.h"

namespace epsim {
namespace {

constexpr std::int64_t kMaxCells = std::int64_t{1} << 23;

}  // namespace

MatrixCollector::MatrixCollector(const Experiment& experiment)
    : ranks_(experiment.topology.ranks()),
      nodes_(experiment.topology.nodes()),
      links_(static_cast<std::int64_t>(experiment.topology.links().size())),
      experts_(experiment.model.num_experts),
      layers_of_run_(static_cast<std::int64_t>(experiment.layers.size()) * experiment.eval.count()),
      keeps_rank_pairs_(layers_of_run_ * ranks_ * ranks_ <= kMaxCells),
      dispatch_sum_(static_cast<std::size_t>(ranks_ * ranks_)),
      combine_sum_(static_cast<std::size_t>(ranks_ * ranks_)) {
  for (const Link& link : experiment.topology.links()) bandwidth_.push_back(link.bandwidth);
}

double MatrixCollector::least_bytes(std::int64_t layers_over_time, std::int64_t bins) const {
  const std::int64_t ranks_of_layer = 5 * ranks_ + 1, pairs_of_layer = 2 * nodes_ * nodes_ + (keeps_rank_pairs_ ? 2 * ranks_ * ranks_ : 0),
                     of_layer = 2 + ranks_of_layer + pairs_of_layer + 2 * links_ + experts_;
  const double over_time = 2.0 * static_cast<double>(layers_over_time) * (static_cast<double>(links_) * static_cast<double>(bins) + 2);
  return 8 * (over_time + static_cast<double>(layers_of_run_) * static_cast<double>(of_layer) + static_cast<double>(2 * ranks_ * ranks_ + links_));
}

void MatrixCollector::add_sum(std::vector<std::int64_t>& sum, const Matrix<std::int64_t>& m) const {
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += m.cells[i];
}

void MatrixCollector::add(const LayerMetrics& m, const Placement& placement) {
  batches_.push_back(m.batch), layers_.push_back(m.layer);
  add_sum(dispatch_sum_, m.dispatch_rank_bytes);
  add_sum(combine_sum_, m.combine_rank_bytes);
  if (keeps_rank_pairs_) {
    dispatch_ranks_.add(m.dispatch_rank_bytes);
    combine_ranks_.add(m.combine_rank_bytes);
  }
  dispatch_nodes_.add(m.dispatch_node_bytes);
  combine_nodes_.add(m.combine_node_bytes);
  for (const LinkLoad& link : m.links) {
    dispatch_links_.values.push_back(static_cast<std::int64_t>(link.dispatch_bytes));
    combine_links_.values.push_back(static_cast<std::int64_t>(link.combine_bytes));
  }
  expert_choices_.values.insert(expert_choices_.values.end(), m.expert_choices.begin(), m.expert_choices.end());
  rank_copies_.values.insert(rank_copies_.values.end(), m.rank_copies.begin(), m.rank_copies.end());
  rank_shared_rows_.values.insert(rank_shared_rows_.values.end(), m.rank_shared_rows.begin(), m.rank_shared_rows.end());
  for (const MemoryUse& use : m.memory) {
    weights_.values.push_back(static_cast<std::int64_t>(use.weights_bytes));
    activations_.values.push_back(static_cast<std::int64_t>(use.activations_bytes));
  }
  first_slot_.values.insert(first_slot_.values.end(), placement.first_slot.begin(), placement.first_slot.end());
  expert_of_slot_.push_back(placement.expert_of_slot);
}

void MatrixCollector::add_over_time(const LinkUse& dispatch, const LinkUse& combine) {
  ++layers_over_time_;
  bins_ = dispatch.bytes_over_time.columns;
  const auto append = [](const LinkUse& use, std::vector<double>& over_time, std::vector<double>& begin_end) {
    over_time.insert(over_time.end(), use.bytes_over_time.cells.begin(), use.bytes_over_time.cells.end());
    begin_end.insert(begin_end.end(), {use.begin_s, use.end_s});
  };
  append(dispatch, dispatch_over_time_, dispatch_begin_end_);
  append(combine, combine_over_time_, combine_begin_end_);
}

std::string MatrixCollector::bytes() const {
  const std::int64_t layers = static_cast<std::int64_t>(layers_.size());
  std::size_t slots = 0;
  for (const auto& of_layer : expert_of_slot_) slots = std::max(slots, of_layer.size());
  std::vector<std::int32_t> physical_to_logical;
  for (const auto& of_layer : expert_of_slot_) {
    physical_to_logical.insert(physical_to_logical.end(), of_layer.begin(), of_layer.end());
    physical_to_logical.resize(physical_to_logical.size() + slots - of_layer.size(), -1);
  }
  using Cells = std::span<const std::int64_t>;
  NpzWriter npz;
  npz.add("batch", {layers}, Cells(batches_));
  npz.add("layer", {layers}, Cells(layers_));
  npz.add("dispatch_rank_bytes_total", {ranks_, ranks_}, Cells(dispatch_sum_));
  npz.add("combine_rank_bytes_total", {ranks_, ranks_}, Cells(combine_sum_));
  if (keeps_rank_pairs_) {
    npz.add("dispatch_rank_bytes", {layers, ranks_, ranks_}, Cells(dispatch_ranks_.values));
    npz.add("combine_rank_bytes", {layers, ranks_, ranks_}, Cells(combine_ranks_.values));
  }
  npz.add("dispatch_node_bytes", {layers, nodes_, nodes_}, Cells(dispatch_nodes_.values));
  npz.add("combine_node_bytes", {layers, nodes_, nodes_}, Cells(combine_nodes_.values));
  npz.add("dispatch_link_bytes", {layers, links_}, Cells(dispatch_links_.values));
  npz.add("combine_link_bytes", {layers, links_}, Cells(combine_links_.values));
  npz.add("link_bandwidth_bytes_per_s", {links_}, std::span<const double>(bandwidth_));
  if (layers_over_time_ > 0) {
    using Numbers = std::span<const double>;
    npz.add("dispatch_link_bytes_over_time", {layers_over_time_, links_, bins_}, Numbers(dispatch_over_time_));
    npz.add("combine_link_bytes_over_time", {layers_over_time_, links_, bins_}, Numbers(combine_over_time_));
    npz.add("dispatch_begin_end_s", {layers_over_time_, 2}, Numbers(dispatch_begin_end_));
    npz.add("combine_begin_end_s", {layers_over_time_, 2}, Numbers(combine_begin_end_));
  }
  npz.add("expert_choices", {layers, experts_}, Cells(expert_choices_.values));
  npz.add("rank_copies", {layers, ranks_}, Cells(rank_copies_.values));
  npz.add("rank_shared_rows", {layers, ranks_}, Cells(rank_shared_rows_.values));
  npz.add("rank_weights_bytes", {layers, ranks_}, Cells(weights_.values));
  npz.add("rank_activations_bytes", {layers, ranks_}, Cells(activations_.values));
  npz.add("physical_to_logical", {layers, static_cast<std::int64_t>(slots)}, std::span<const std::int32_t>(physical_to_logical));
  npz.add("first_slot", {layers, ranks_ + 1}, Cells(first_slot_.values));
  return npz.bytes();
}

}  // namespace epsim
