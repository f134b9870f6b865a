#include "analysis/measure.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "analysis/bottleneck.h"
#include "analysis/memory.h"
#include "analysis/traffic.h"

namespace epsim {
namespace {

void measure_spread(const Reach& reach, LayerMetrics& m) {
  const auto sum = [](const std::vector<std::int64_t>& counts) { return static_cast<double>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0})); };
  const double tokens = sum(reach.tokens);
  if (tokens == 0) return;
  m.distinct_ranks_per_token = sum(reach.ranks.cells) / tokens;
  m.distinct_nodes_per_token = sum(reach.nodes.cells) / tokens;
}

}  // namespace

LayerMetrics measure(const Experiment& experiment, const LayerRun& run) {
  const Plan& plan = run.plan;
  const Topology& topology = experiment.topology;
  LayerMetrics m;
  m.batch = run.batch, m.layer = plan.layer;
  m.relocation = run.relocation;
  const Timeline::Stages stages = run.timeline.stages(run.schedule);
  m.dispatch_s = stages.dispatch.seconds();
  m.compute_s = stages.compute.seconds();
  m.combine_s = stages.combine.seconds();
  m.layer_s = run.timeline.end.seconds();
  m.lower_bound_s = run.lower_bound_s;
  m.arrival_error = run.timeline.arrival_error;

  m.tokens = plan.routing.tokens();
  m.choices = m.tokens * plan.routing.top_k;
  m.copies = m.choices - plan.drops.choices;
  m.drops = plan.drops;
  m.rank_copies = plan.copies_of_rank();
  m.rank_load = load_metrics(m.rank_copies, m.tokens);
  m.expert_choices.resize(plan.choices.columns);
  for (std::int64_t r = 0; r < plan.choices.rows; ++r)
    for (std::int64_t e = 0; e < plan.choices.columns; ++e) m.expert_choices[e] += plan.choices(r, e);
  m.expert_load = load_metrics(m.expert_choices, m.tokens);
  measure_spread(plan.reach, m);

  Traffic dispatch = traffic(run.schedule, Stage::dispatch, topology), combine = traffic(run.schedule, Stage::combine, topology);
  m.dispatch_bytes = dispatch.bytes(), m.combine_bytes = combine.bytes();
  m.dispatch_cross_node_bytes = dispatch.cross_node_bytes(), m.combine_cross_node_bytes = combine.cross_node_bytes();
  m.links.resize(topology.links().size());
  for (std::size_t l = 0; l < m.links.size(); ++l) m.links[l] = {static_cast<std::int32_t>(l), dispatch.link_bytes[l], combine.link_bytes[l]};
  m.dispatch_busiest = busiest_link(dispatch.link_bytes, topology);
  m.combine_busiest = busiest_link(combine.link_bytes, topology);
  m.dispatch_transfer_s = transfer_span(run, Stage::dispatch), m.combine_transfer_s = transfer_span(run, Stage::combine);
  m.memory = memory_use(experiment, run);
  m.bottleneck = bottleneck(experiment, run, m, dispatch, combine);
  m.dispatch_rank_bytes = std::move(dispatch.rank_bytes), m.combine_rank_bytes = std::move(combine.rank_bytes);
  m.dispatch_node_bytes = std::move(dispatch.node_bytes), m.combine_node_bytes = std::move(combine.node_bytes);
  return m;
}

void RunMetrics::add(LayerMetrics layer) {
  layer.dispatch_rank_bytes = layer.combine_rank_bytes = layer.dispatch_node_bytes = layer.combine_node_bytes = {};
  total_s += layer.layer_s + layer.relocation.waited_s;
  double longest_s = -1;
  for (const LayerMetrics& l : layers) longest_s = std::max(longest_s, l.layer_s);
  if (layer.layer_s > longest_s) {
    bottleneck = layer.bottleneck;
    slowest_batch = layer.batch, slowest_layer = layer.layer;
  }
  layers.push_back(std::move(layer));
}

}  // namespace epsim
