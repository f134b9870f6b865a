#pragma once
#include <string>

#include "analysis/measure.h"
#include "tests/support/random_case.h"

namespace epsim::testing {

/// A random layer played by the real engine: everything that analysis reads.
struct MeasuredCase {
  RandomCase layer;
  Experiment experiment;
  LayerRun run;

  explicit MeasuredCase(std::uint64_t seed, const std::string& exchange = "{hierarchical: {reduce_in_node: true}}", const std::string& network = "fair", const std::string& shared_expert = "") : layer(seed) {
    Experiment& e = experiment;
    if (!shared_expert.empty()) layer.share(shared_expert), e.shared_expert = part_from_yaml(builtin_shared_expert_rules(), shared_expert, static_cast<const Shape*>(nullptr));
    e.name = "case";
    e.seed = seed;
    e.model.name = "small";
    e.model.num_experts = layer.plan.routing.experts, e.model.top_k = layer.plan.routing.top_k;
    e.model.hidden = layer.pricing().hidden, e.model.expert_ffn = layer.pricing().expert_ffn, e.model.shared_ffn = layer.pricing().shared_ffn;
    e.layers = {layer.plan.layer};
    e.topology = layer.topology;
    e.source.first_token = layer.plan.routing.first_token;
    e.exchange = layer.exchange(exchange);
    e.network = part_from_yaml(builtin_networks(), network);
    e.compute = part_from_yaml(builtin_computes(), "roofline");
    e.pricing = layer.pricing();
    e.resolved = parse_yaml(std::make_shared<SourceText>(
        SourceText{"test", "{seed: 7, placement: {eplb: {slots: 12}}, precision: {dispatch: fp8}, source: {zipf: {exponent: 1.25, path: '010'}}, list: [1, true]}"}));
    run = run_plan(e, layer.plan, Timeline::Detail::rank);
  }
  LayerMetrics metrics() const { return measure(experiment, run); }
};

}  // namespace epsim::testing
