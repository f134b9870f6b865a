#include "sim/run.h"

#include <algorithm>
#include <chrono>

#include "policies/bound.h"
#include "policies/migration.h"
#include "sim/engine.h"

namespace epsim {
namespace {

using Statistics = Rebalance::Statistics;

/// Copies that experts compute: what capacity keeps, for that is what a placement balances. Limits are per source and expert: no placement changes them.
Matrix<std::int64_t> kept_copies(const Experiment& e, const Routing& routing, Matrix<std::int64_t> counts) {
  return kept_choices(e.capacity, routing, std::move(counts));
}

/// max/mean of the rank loads where each expert's load splits evenly over its replicas.
double max_over_mean(const Placement& placement, const std::vector<std::int64_t>& loads) {
  double most = 0, sum = 0;
  for (int r = 0; r < placement.ranks(); ++r) {
    double load = 0;
    for (std::int32_t s = placement.first_slot[static_cast<std::size_t>(r)]; s < placement.first_slot[static_cast<std::size_t>(r) + 1]; ++s) {
      const std::size_t e = placement.expert_of_slot[static_cast<std::size_t>(s)];
      load += static_cast<double>(loads[e]) / static_cast<double>(placement.slots_of_expert[e].size());
    }
    most = std::max(most, load), sum += load;
  }
  return sum > 0 ? most * placement.ranks() / sum : 1;
}

Problem problem_of(const Experiment& e) {
  Problem p;
  p.experts = e.model.num_experts, p.ranks = e.topology.ranks(), p.nodes = e.topology.nodes();
  p.expert_groups = e.model.expert_groups, p.seed = e.seed;
  p.topology = &e.topology;
  p.pricing = e.pricing;
  p.expert_seconds = [&e](std::int64_t rows) {
    return e.compute.kernel_seconds(e.topology.device(), expert_call(e.pricing, Rank(0), Slot(0), rows, e.pricing.expert_ffn), e.compute_precision);
  };
  return p;
}

}  // namespace

void route_layer(const Experiment& e, int batch, int layer, int begin, int end, Routing& routing) { route(e.source, e.router, batch, layer, begin, end, routing, e.seed); }

namespace {

double simulated_seconds(const Experiment& e, const Plan& plan) {
  return simulate(e.exchange.schedule(plan, e.topology, e.pricing), e.topology, e.network, e.compute, e.compute_precision).end.seconds();
}

}  // namespace

LayerRun run_plan(const Experiment& e, Plan plan, Timeline::Detail detail) {
  LayerRun run;
  run.plan = std::move(plan);
  run.schedule = e.exchange.schedule(run.plan, e.topology, e.pricing);
  run.timeline = simulate(run.schedule, e.topology, e.network, e.compute, e.compute_precision, detail);
  run.lower_bound_s = lower_bound(run.schedule, e.topology, [&](const KernelCall& call) { return e.compute.kernel_seconds(e.topology.device(), call, e.compute_precision); });
  return run;
}

Run::Run(const Experiment& experiment)
    : experiment_(experiment), histories_(experiment.layers.size()), coming_(experiment.layers.size()), relocations_(experiment.layers.size()) {
  if (experiment.rebalance.statistics == Statistics::exact) placements_.resize(experiment.layers.size());
}

void Run::see(std::size_t layer, std::shared_ptr<const Routing> routing) {
  Matrix<std::int64_t> counts = kept_copies(experiment_, *routing, count_choices(*routing));
  remember(layer, std::move(counts), experiment_.placement.sees == PlacementPolicy::Sees::tokens ? std::move(routing) : nullptr);
}

void Run::remember(std::size_t layer, Matrix<std::int64_t> kept, std::shared_ptr<const Routing> tokens) {
  const Rebalance& rule = experiment_.rebalance;
  LayerHistory& history = histories_[layer];
  if (rule.statistics == Statistics::ema) history.fade(rule.decay);
  history.add(std::move(kept), std::move(tokens));
  if (rule.statistics == Statistics::window) history.keep(static_cast<std::size_t>(rule.window));
  if (rule.statistics == Statistics::lagged) history.keep(static_cast<std::size_t>(rule.lag));
}

std::vector<Placement> Run::place(const std::vector<std::size_t>& layers, const std::vector<const LayerHistory*>& histories) {
  Problem problem = problem_of(experiment_);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    histories[i]->tell(experiment_.layers[layers[i]], problem);
    if (!placements_.empty() && placements_[layers[i]].slots() > 0) problem.previous.push_back(placements_[layers[i]]);
  }
  if (!problem.tokens.empty())
    problem.layer_seconds = [this, &problem](std::size_t l, const Placement& placement) {
      double sum = 0;
      for (const std::shared_ptr<const Routing>& batch : problem.tokens[l])
        sum += simulated_seconds(experiment_, make_plan(problem.layers[l], *batch, experiment_.capacity, placement, experiment_.replica, experiment_.topology));
      return sum / static_cast<double>(problem.tokens[l].size());
    };
  const auto begin = std::chrono::steady_clock::now();
  std::vector<Placement> placed = experiment_.placement.place(problem);
  placing_s_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  ensure(placed.size() == layers.size(), "a placement policy answers for all layers");
  for (const Placement& p : placed) p.check(experiment_.model.num_experts);
  return placed;
}

void Run::change(std::size_t layer, Placement placement) {
  const Experiment& e = experiment_;
  Relocation& what = relocations_[layer];
  what.decided = true;
  const Migration moved = migration(placements_[layer], placement, e.topology);
  what.changed_slots = moved.changed_slots, what.moved_experts = static_cast<std::int64_t>(moved.moves.size()), what.peers = moved.peers;
  what.bytes = what.moved_experts * e.pricing.expert_bytes;
  if (e.rebalance.moving == Rebalance::Moving::overlapped && !moved.moves.empty()) {
    coming_[layer] = std::move(placement);
    return;
  }
  if (e.rebalance.moving == Rebalance::Moving::blocking && !moved.moves.empty()) {
    const Schedule weights = migration_schedule(moved, e.topology.ranks(), e.pricing.expert_bytes);
    what.moving_s = what.waited_s = simulate(weights, e.topology, e.network, e.compute, e.compute_precision).end.seconds();
  }
  placements_[layer] = std::move(placement);
}

void Run::decide(int batch) {
  const Experiment& e = experiment_;
  const Rebalance& rule = e.rebalance;
  decided_batch_ = batch;
  for (std::size_t l = 0; l < e.layers.size(); ++l) {
    relocations_[l] = {};
    if (coming_[l].slots() > 0) placements_[l] = std::exchange(coming_[l], {});
  }
  if (placements_.empty()) {
    // The first placement: from what was seen, or as if all experts were alike.
    LayerHistory even;
    Matrix<std::int64_t> ones(e.topology.ranks(), e.model.num_experts);
    std::ranges::fill(ones.cells, 1);
    even.add(std::move(ones), nullptr);
    std::vector<std::size_t> all;
    std::vector<const LayerHistory*> histories;
    for (std::size_t l = 0; l < e.layers.size(); ++l) {
      all.push_back(l);
      histories.push_back(histories_[l].batches() > 0 ? &histories_[l] : &even);
    }
    placements_ = place(all, histories);
    return;
  }
  if (rule.statistics == Statistics::fit || (batch - e.eval.first) % rule.every != 0) return;
  std::vector<std::size_t> layers;
  std::vector<const LayerHistory*> histories;
  std::vector<LayerHistory> lagged(e.layers.size());
  const std::size_t most = rule.layers_per_batch == 0 ? e.layers.size() : std::min(e.layers.size(), static_cast<std::size_t>(rule.layers_per_batch));
  for (std::size_t i = 0; i < most; ++i) {
    const std::size_t l = next_layer_;
    next_layer_ = (next_layer_ + 1) % e.layers.size();
    if (histories_[l].batches() == 0 || (rule.statistics == Statistics::lagged && histories_[l].batches() < static_cast<std::size_t>(rule.lag))) continue;
    const LayerHistory* history = &histories_[l];
    if (rule.statistics == Statistics::lagged) lagged[l] = history->oldest(), history = &lagged[l];
    if (max_over_mean(placements_[l], history->loads()) <= rule.threshold) continue;
    layers.push_back(l), histories.push_back(history);
  }
  if (layers.empty()) return;
  std::vector<Placement> placed = place(layers, histories);
  for (std::size_t i = 0; i < layers.size(); ++i) change(layers[i], std::move(placed[i]));
}

Plan Run::plan(int batch, std::size_t layer, Routing routing) {
  const Experiment& e = experiment_;
  Matrix<std::int64_t> choices = count_choices(routing);
  const auto tokens = [&] { return e.placement.sees == PlacementPolicy::Sees::tokens ? std::make_shared<const Routing>(routing) : nullptr; };
  if (e.rebalance.statistics == Statistics::exact) {
    LayerHistory itself;
    itself.add(kept_copies(e, routing, choices), tokens());
    relocations_[layer] = {};
    if (placements_[layer].slots() == 0 || (batch - e.eval.first) % e.rebalance.every == 0) {
      Placement placed = std::move(place({layer}, {&itself}).front());
      if (placements_[layer].slots() == 0)
        placements_[layer] = std::move(placed);
      else
        change(layer, std::move(placed));
    }
  } else {
    if (decided_batch_ != batch) decide(batch);
    if (e.rebalance.statistics != Statistics::fit) remember(layer, kept_copies(e, routing, choices), tokens());
  }
  return make_plan(e.layers[layer], std::move(routing), std::move(choices), e.capacity, placements_[layer], e.replica, e.topology);
}

LayerRun Run::play(int batch, std::size_t layer, Routing routing, Timeline::Detail detail) {
  const Experiment& e = experiment_;
  LayerRun run = run_plan(e, plan(batch, layer, std::move(routing)), detail);
  run.batch = batch;
  Relocation& what = relocations_[layer];
  if (coming_[layer].slots() > 0) {
    const Schedule weights = migration_schedule(migration(placements_[layer], coming_[layer], e.topology), e.topology.ranks(), e.pricing.expert_bytes);
    const std::unique_ptr<Network> network = e.network.make(e.topology);
    Engine engine(e.topology, *network, e.compute, e.compute_precision, detail);
    engine.add(run.schedule), engine.add(weights);
    std::vector<Timeline> both = engine.run();
    what.moving_s = both[1].end.seconds();
    what.slowed_s = both[0].end.seconds() - run.timeline.end.seconds();
    run.timeline = std::move(both[0]);
  }
  run.relocation = what;
  return run;
}

void fit(const Experiment& e, const std::vector<Run*>& runs) {
  for (int batch = e.fit.first; batch < e.fit.last; ++batch)
    for (std::size_t l = 0; l < e.layers.size(); ++l) {
      const auto routing = std::make_shared<Routing>(make_routing(e.source, e.model.num_experts, e.model.top_k, e.router));
      route_layer(e, batch, e.layers[l], 0, e.topology.ranks(), *routing);
      for (Run* run : runs) run->see(l, routing);
    }
}

void run(const Experiment& e, Timeline::Detail detail, const std::function<bool(LayerRun&)>& each) {
  Run runs(e);
  fit(e, {&runs});
  Routing routing;
  for (int batch = e.eval.first; batch < e.eval.last; ++batch)
    for (std::size_t l = 0; l < e.layers.size(); ++l) {
      if (routing.expert.empty()) routing = make_routing(e.source, e.model.num_experts, e.model.top_k, e.router);
      route_layer(e, batch, e.layers[l], 0, e.topology.ranks(), routing);
      LayerRun one = runs.play(batch, l, std::move(routing), detail);
      if (!each(one)) return;
      routing = std::move(one.plan.routing);  // the next layer's, in the same memory
    }
}

}  // namespace epsim
