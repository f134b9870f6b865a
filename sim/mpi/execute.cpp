#include "sim/mpi/execute.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include <fmt/format.h>
#include <unistd.h>

#include "sim/engine.h"
#include "sim/moe/reference.h"
#include "sim/mpi/dump.h"
#include "sim/mpi/gate.h"
#include "sim/mpi/layer_data.h"
#include "sim/mpi/passes.h"
#include "sim/run.h"

namespace epsim {
namespace {

/// Whether arrays agree in every bit, and their largest difference.
struct Agreement {
  bool same = true;
  double worst = 0;

  void compare(const std::vector<float>& got, const std::vector<float>& expected) {
    same = same && got.size() == expected.size() && std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)) == 0;
    for (std::size_t i = 0; i < std::min(got.size(), expected.size()); ++i) {
      // A NaN must not look like agreement.
      worst = std::isnan(got[i]) ? std::numeric_limits<double>::infinity() : std::max(worst, std::abs(double{got[i]} - double{expected[i]}));
    }
  }
};

/// Bytes that the first process needs at the least: its share of the experts, and the tokens, their result and the two references; for gradients also those of all experts, twice, and what experts keep of their rows.
double least_memory(const World& world, const Experiment& e, bool backward) {
  const double expert = 3.0 * static_cast<double>(e.execute_hidden) * static_cast<double>(e.execute_ffn), tokens = static_cast<double>(e.source.tokens()), hidden = static_cast<double>(e.execute_hidden);
  double values = expert * e.model.num_experts / world.size() + 4 * tokens * hidden;
  if (backward) {
    const double rows = tokens * (e.router.top_k > 0 ? e.router.top_k : e.model.top_k) / world.size();
    values += expert * e.model.num_experts * (2 + 1.0 / world.size()) + 3 * tokens * hidden + rows * (2 * hidden + 5 * static_cast<double>(e.execute_ffn));
  }
  return static_cast<double>(sizeof(float)) * values;
}

LayerExecution execute_layer(World& world, const Experiment& e, Run& run, std::size_t index, const ExecuteOptions& options) {
  const int layer = e.layers[index];
  const int ranks = e.topology.ranks();
  const Hosts hosts(ranks, world.size());
  const int begin = hosts.first[world.rank()], end = hosts.first[world.rank() + 1];

  // Each process routes its own tokens; choices, not scores, are then shared, and from there on every process plans alike.
  Routing routing = e.routing();
  route_layer(e, e.eval.first, layer, begin, end, routing);
  std::vector<std::int64_t> choice_counts;
  for (int p = 0; p < world.size(); ++p) choice_counts.push_back((routing.first_token[hosts.first[p + 1]] - routing.first_token[hosts.first[p]]) * routing.top_k);
  world.all_gather(std::span(routing.expert), choice_counts);
  world.all_gather(std::span(routing.weight), choice_counts);
  if (!routing.priority.empty()) {
    for (std::int64_t& count : choice_counts) count /= routing.top_k;
    world.all_gather(std::span(routing.priority), choice_counts);
  }
  std::vector<float> weights = options.backward ? routing.weight : std::vector<float>();
  const Plan plan = run.plan(e.eval.first, index, std::move(routing));
  if (options.backward && chooses_after_placing(e)) weights = choose_again(e, e.eval.first, layer, plan.placement).weight;

  LayerExecution done;
  done.layer = layer;
  done.plan_digest = plan.digest();
  if (!world.all_equal(done.plan_digest)) throw std::runtime_error(fmt::format("processes planned layer {} differently: no row was moved", layer));
  const Schedule schedule = e.exchange.schedule(plan, e.topology, execute_pricing(e));

  Passes passes(world, e, plan, schedule, hosts, options.backward, options.repeats);
  const Played forward = passes.forward();
  const std::int64_t row_bytes = e.execute_hidden * static_cast<std::int64_t>(sizeof(float));
  done.measured = forward.measured, done.rows_match_plan = forward.rows_match_plan;
  done.rows_moved = forward.rows_moved, done.bytes_moved = forward.rows_moved * row_bytes;
  ExecutedGradients got;
  if (options.backward) {
    const Played backward = passes.backward(weights, got.of_plan, got.gate);
    done.backward = {.rows_match_plan = backward.rows_match_plan, .rows_moved = backward.rows_moved, .bytes_moved = backward.rows_moved * row_bytes, .measured = backward.measured};
  }
  if (!world.root()) return done;

  const Timeline timeline = simulate(schedule, e.topology, e.network, at_speeds(e.compute, e.era(e.eval.first).speeds), Precision::fp32);
  const Timeline::Stages stages = timeline.stages(schedule);
  done.simulated = {stages.dispatch.seconds(), stages.compute.seconds(), stages.combine.seconds()};

  const std::int64_t tokens = plan.routing.tokens();
  const bool shared_expert = e.model.shared_ffn > 0;
  const std::vector<float> x = token_vectors(e, 0, tokens);
  const AddingOrder order = adding_order(e.exchange, plan, e.topology);
  ExpertBank bank(e.execute_hidden);
  const IdleBank idle = idle_bank(e, layer);
  {
    const Reference expected = reference(plan, order, shared_expert, x, bank, [&](int expert) { load_expert(e, layer, expert, bank, ExpertBank::Passes::forward); }, idle);
    Agreement tree, plain;
    tree.compare(forward.result, expected.y), plain.compare(forward.result, expected.y_plain);
    done.bit_identical = tree.same, done.max_abs_error = tree.worst, done.max_abs_error_plain = plain.worst;
  }
  if (options.backward) {
    got.r = gradient_vectors(e, layer, 0, tokens);
    PlanGradients expected = reference_backward(plan, order, shared_expert, x, got.r, bank, [&](int expert) { load_expert(e, layer, expert, bank, ExpertBank::Passes::both); }, idle);
    Agreement all;
    if (gate_has_gradient(e)) {
      std::vector<std::vector<float>> gate;
      for (const Rank rank : ids<Rank>(ranks)) gate.push_back(gate_backward(e, plan, weights, expected.d_weight, rank, of_home(plan, rank, e.execute_hidden, expected.x)));
      all.compare(got.gate, add_replicas(gate));
    }
    all.compare(got.of_plan.x, expected.x), all.compare(got.of_plan.d_weight, expected.d_weight), all.compare(got.of_plan.shared, expected.shared);
    all.compare(got.of_plan.constant, expected.constant), all.compare(got.of_plan.constant_gate, expected.constant_gate);
    for (std::size_t expert = 0; expert < expected.experts.size(); ++expert) all.compare(got.of_plan.experts[expert], expected.experts[expert]);
    done.backward->bit_identical = all.same, done.backward->max_abs_error = all.worst;
  }
  if (!options.dump.empty()) write_dump(options.dump, e, plan, x, forward.result, options.backward ? &got : nullptr);
  return done;
}

Location place_of(const Experiment& e, std::string_view kind) {
  const Setting* setting = e.resolved.find(kind);
  return setting ? setting->at : Location{};
}

}  // namespace

void check_backward(const Experiment& e, Diagnostics& problems) {
  if (e.capacity.on_arrival) problems.add(place_of(e, "capacity"), "--backward needs a capacity that drops before anything is sent: of choices that are dropped on arrival rows travel that nothing is computed from, here or backwards");
  if (e.source.tokens() >= TwoPasses::kMostTokens)
    problems.add(place_of(e, "source"), fmt::format("--backward takes fewer than {} tokens, whose numbers float32 can hold, and there are {}", TwoPasses::kMostTokens, e.source.tokens()));
}

void check_execution(const World& world, const Experiment& e, const ExecuteOptions& options) {
  const int ranks = e.topology.ranks();
  Diagnostics problems;
  if (world.size() > ranks) problems.add({}, fmt::format("{} processes cannot share {} plan ranks: start at most {} (mpirun -n {})", world.size(), ranks, ranks, ranks));
  if (!options.dump.empty() && e.layers.size() != 1)
    problems.add({}, fmt::format("--dump writes one layer and the experiment has {}: choose one, such as --set layers={}", e.layers.size(), e.layers.front()));
  if (!e.changes.events.empty()) problems.add(e.changes.events.front().at, "`events` has no effect here: real processes run one batch, on all ranks; leave it out with --set events=[]");
  if (options.backward) check_backward(e, problems);
  const double memory = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE)), least = least_memory(world, e, options.backward);
  if (memory > 0 && least > memory)
    problems.add({}, fmt::format("real experts and tokens of this size need more than {} on the first process and this machine has {}: shrink them, such as --set execute.hidden=256 --set "
                                 "execute.ffn=64, or take fewer tokens",
                                 format_bytes(least), format_bytes(memory)));
  problems.check();
}

std::vector<LayerExecution> execute(World& world, const Experiment& e, const ExecuteOptions& options) {
  std::vector<LayerExecution> all;
  Run run(e);
  fit(e, {&run});
  for (std::size_t l = 0; l < e.layers.size(); ++l) all.push_back(execute_layer(world, e, run, l, options));
  return all;
}

}  // namespace epsim
