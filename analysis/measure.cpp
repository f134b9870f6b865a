#include "analysis/measure.h"

#include <algorithm>
#include <limits>
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

/// Tokens whose kept copies are of both experts: [E][E]. Empty where counting them would take longer than simulating.
Matrix<std::int64_t> together(const Plan& plan) {
  constexpr std::int64_t kMostPairs = 4'000'000;
  const std::int64_t k = plan.routing.top_k, tokens = plan.routing.tokens();
  if (tokens * k * k > kMostPairs) return {};
  Matrix<std::int64_t> pairs(plan.routing.experts, plan.routing.experts);
  for (std::int64_t t = 0; t < tokens * k; t += k)
    for (std::int64_t i = t; i < t + k; ++i)
      for (std::int64_t j = t; j < t + k; ++j)
        if (i != j && plan.slot[i] >= 0 && plan.slot[j] >= 0) ++pairs(plan.routing.expert[i], plan.routing.expert[j]);
  return pairs;
}

/// Tokens by the number of copies they kept: [0 .. top_k].
std::vector<std::int64_t> tokens_with(const Plan& plan) {
  const std::int64_t k = plan.routing.top_k;
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(k) + 1);
  for (std::int64_t t = 0; t < plan.routing.tokens(); ++t) ++tokens[static_cast<std::size_t>(std::count_if(plan.slot.begin() + t * k, plan.slot.begin() + (t + 1) * k, [](auto s) { return s >= 0; }))];
  return tokens;
}

/// Tokens whose shared expert another rank than theirs computes.
std::int64_t visits_of(const Plan& plan) {
  const Matrix<std::int64_t> visits = visits_by_rank(plan, 1);
  return std::accumulate(visits.cells.begin(), visits.cells.end(), std::int64_t{0});
}

std::vector<Rank> all_ranks(int ranks) {
  std::vector<Rank> all;
  for (const Rank r : ids<Rank>(ranks)) all.push_back(r);
  return all;
}

/// The layer as every placement with the same room meets it.
Demand demand_of(const Experiment& e, const LayerRun& run) {
  const Plan& plan = run.plan;
  const std::vector<double>& speeds = run.speeds;
  Demand d;
  d.speed = speeds;
  d.kept = Matrix<std::int64_t>(plan.ranks(), plan.routing.experts);
  for (std::int64_t r = 0; r < d.kept.rows; ++r)
    for (const Slot s : ids<Slot>(plan.placement.slots()))
      d.kept(r, plan.placement.expert_of_slot[s]) += plan.copies(r, s) - (plan.dropped_on_arrival.rows > 0 ? plan.dropped_on_arrival(r, s) : 0);
  // Places that the policy left empty are room that another placement could use.
  const std::vector<std::int32_t>& room = e.placement.room;
  const bool knows_room = room.size() == plan.placement.first_slot.size() && !e.era(run.batch).survivors;
  for (const Rank r : ids<Rank>(plan.ranks())) d.slots.push_back(std::max(plan.placement.first_slot[r + 1] - plan.placement.first_slot[r], knows_room ? room[r + 1] - room[r] : 0));
  d.top_k = plan.routing.top_k;
  d.together = together(plan);
  if (plan.dropped_on_arrival.rows == 0) d.tokens_with = tokens_with(plan);
  d.dispatch_row_for = e.exchange.dispatch_row_for, d.combine_row_for = e.exchange.combine_row_for;
  d.dispatch_row = e.pricing.dispatch_row(), d.combine_row = e.pricing.combine_row();
  const auto seconds = [&e](std::int64_t rows, std::int64_t ffn) {
    return e.compute.kernel_seconds(e.topology.device(), expert_call(e.pricing, Rank(0), Slot(0), rows, ffn), e.compute_precision);
  };
  d.expert_seconds = [&e, seconds](std::int64_t rows) { return seconds(rows, e.pricing.expert_ffn); };
  if (e.shared_expert.choose)
    d.shared_anywhere_s = plan.routing.tokens() > 0 ? seconds(plan.routing.tokens(), e.pricing.shared_ffn) : 0;
  else if (e.pricing.shared_ffn > 0)
    for (const Rank r : ids<Rank>(plan.ranks())) {
      const std::int64_t rows = plan.routing.first_token[r + 1] - plan.routing.first_token[r];
      d.shared_seconds.push_back(rows > 0 ? seconds(rows, e.pricing.shared_ffn) / (speeds.empty() ? 1 : speeds[r]) : 0);
    }
  d.in_turn = e.replica.in_turn && !e.capacity.by_replica() && plan.dropped_on_arrival.rows == 0;
  d.experts_wait = experts_wait(run.schedule), d.hops_wait = hops_wait(run.schedule);
  d.all_ways = !e.era(run.batch).survivors;
  return d;
}

}  // namespace

double gap(double value, double bound) { return bound > 0 ? std::max(0.0, value / bound - 1) : 0; }

std::int64_t LayerMetrics::max_rank_copies() const { return rank_copies.empty() ? 0 : *std::ranges::max_element(rank_copies); }

LayerMetrics measure(const Experiment& experiment, const LayerRun& run, const MachineCuts& cuts) {
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
  m.choices = std::accumulate(plan.choices.cells.begin(), plan.choices.cells.end(), std::int64_t{0});
  m.copies = m.choices - plan.drops.choices;
  m.drops = plan.drops;
  if (experiment.chooses_all) {
    const std::int64_t without_room = m.tokens * plan.routing.top_k - m.choices;
    m.choices += without_room, m.drops.choices += without_room;
  }
  m.rank_copies = plan.copies_of_rank();
  m.rank_shared_rows.resize(m.rank_copies.size());
  if (experiment.pricing.shared_ffn > 0) m.rank_shared_rows = plan.shared_rows_of_rank();
  m.shared_visits = visits_of(plan);
  std::vector<std::int64_t> copies, rows;  // of ranks that are up
  const Survivors* const survivors = experiment.era(run.batch).survivors.get();
  for (const Rank r : survivors ? survivors->up : all_ranks(plan.ranks())) copies.push_back(m.rank_copies[r]), rows.push_back(m.rank_copies[r] + m.rank_shared_rows[r]);
  m.rank_load = load_metrics(copies, m.tokens);
  m.rank_rows_max_over_mean = load_metrics(rows, m.tokens).max_over_mean;
  m.ranks_up = run.ranks_up, m.rehomed_tokens = run.rehomed_tokens, m.lost_tokens = run.lost_tokens;
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
  m.optimum = optimum_bounds(demand_of(experiment, run), topology, cuts);
  m.bottleneck = bottleneck(experiment, run, m, dispatch, combine);
  m.dispatch_rank_bytes = std::move(dispatch.rank_bytes), m.combine_rank_bytes = std::move(combine.rank_bytes);
  m.dispatch_node_bytes = std::move(dispatch.node_bytes), m.combine_node_bytes = std::move(combine.node_bytes);
  return m;
}

void BreakEven::add(const Relocation& moved) {
  if (!moved.paid) return;
  cost_s += moved.paid_s, gain_s += moved.gained_s;
  ++moves;
}

std::optional<double> BreakEven::batches() const {
  if (moves == 0) return {};
  return gain_s > 0 ? cost_s / gain_s : std::numeric_limits<double>::infinity();
}

void RunMetrics::add(LayerMetrics layer) {
  layer.dispatch_rank_bytes = layer.combine_rank_bytes = layer.dispatch_node_bytes = layer.combine_node_bytes = {};
  total_s += layer.layer_s + layer.relocation.waited_s;
  break_even.add(layer.relocation);
  if (layer.layer_s > slowest_s) {
    slowest_s = layer.layer_s, bottleneck = layer.bottleneck;
    slowest_batch = layer.batch, slowest_layer = layer.layer;
  }
  layers.push_back(std::move(layer));
}

}  // namespace epsim
