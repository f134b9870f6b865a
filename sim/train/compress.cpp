#include "sim/train/compress.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/parallel.h"
#include "sim/moe/merge.h"
#include "sim/moe/vectors.h"
#include "workloads/import/ours.h"

namespace epsim {
namespace {

Routing routing_of(const Routed& routed) {
  Routing routing;
  routing.experts = routed.experts, routing.top_k = routed.top_k, routing.may_choose_fewer = true;
  routing.first_token = {0, routed.tokens};
  routing.weight = routed.weight;
  for (const std::int32_t e : routed.expert) routing.expert.push_back(e < 0 ? kNoExpert : static_cast<std::uint16_t>(e));
  return routing;
}

/// Adds what experts give for a batch to the sums of `seen`: of outputs over all tokens, and of weighted lengths over those that chose an expert.
void see_outputs(const LayerShape& s, const ExpertWeights& weights, const std::vector<float>& x, const Routed& routed, ExpertsSeen& seen) {
  const auto tokens = static_cast<std::int64_t>(x.size()) / s.hidden;
  if (seen.saliency.empty()) seen.saliency.resize(static_cast<std::size_t>(s.experts)), seen.mean_output = Matrix<double>(s.experts, s.hidden);
  parallel_for(s.experts, [&](std::int64_t e) {
    std::vector<float> g(static_cast<std::size_t>(tokens * s.ffn)), u(weights.w3.empty() ? 0 : g.size()), out(x.size());
    Ffn(s.expert(), view_of(weights, s.expert(), e)).forward(x.data(), tokens, g.data(), u.empty() ? nullptr : u.data(), out.data());
    const std::span<double> sum = seen.mean_output.row(e);
    for (std::size_t i = 0; i < out.size(); ++i) sum[i % sum.size()] += double{out[i]};
    for (std::size_t c = 0; c < routed.expert.size(); ++c) {
      if (routed.expert[c] != e) continue;
      const float* row = out.data() + static_cast<std::int64_t>(c) / routed.top_k * s.hidden;
      double squares = 0;
      for (std::int64_t i = 0; i < s.hidden; ++i) squares += double{row[i]} * double{row[i]};
      seen.saliency[static_cast<std::size_t>(e)] += double{routed.weight[c]} * std::sqrt(squares);
    }
  });
}

/// The router that makes a token's further choices only where they weigh enough, layer by layer.
Router skipping(Router router, const std::vector<ExpertMap>& maps) {
  std::vector<ExpertMap> skips;
  for (const ExpertMap& map : maps) skips.push_back(unchanged(static_cast<int>(map.of_the_rest().to.size()))), skips.back().skip_below = map.skip_below;
  Router out = router;
  out.may_choose_fewer = true;
  out.select = nullptr, out.weigh = nullptr, out.prioritise = nullptr, out.backward = nullptr;
  out.choose = [router = std::move(router), skips = std::move(skips)](const GateBatch& batch, std::span<std::int32_t> experts, std::span<float> weights) {
    choose(router, batch, experts, weights);
    const auto k = static_cast<std::size_t>(router.top_k);
    std::vector<std::uint16_t> ids(k);
    for (std::size_t t = 0; t < experts.size(); t += k) {
      for (std::size_t c = 0; c < k; ++c) ids[c] = experts[t + c] < 0 ? kNoExpert : static_cast<std::uint16_t>(experts[t + c]);
      compress(skips[static_cast<std::size_t>(batch.layer)], ids, weights.subspan(t, k));
      for (std::size_t c = 0; c < k; ++c) experts[t + c] = ids[c] == kNoExpert ? -1 : ids[c];
    }
  };
  return out;
}

/// The columns that the gate still has, by their numbers in the whole model: of experts that are not pruned, and of those that compute nothing.
std::vector<std::size_t> columns_of(const ExpertMap& map, int idle) {
  std::vector<std::size_t> columns;
  for (std::size_t e = 0; e < map.to.size() + static_cast<std::size_t>(idle); ++e)
    if (e >= map.to.size() || map.to[e] != kNoExpert) columns.push_back(e);
  return columns;
}

/// Rows [n][width] with only some of the columns.
std::vector<float> only(const std::vector<std::size_t>& columns, const std::vector<float>& rows, std::size_t width) {
  std::vector<float> out;
  for (std::size_t row = 0; row < rows.size(); row += width)
    for (const std::size_t c : columns) out.push_back(rows[row + c]);
  return out;
}

/// The experts one after another, in the place of each the one that `of` names.
ExpertWeights in_places(const ExpertWeights& experts, std::int64_t count, const std::vector<std::uint16_t>& of) {
  ExpertWeights out;
  for (auto array : {&ExpertWeights::w1, &ExpertWeights::w3, &ExpertWeights::w2, &ExpertWeights::b1, &ExpertWeights::b3, &ExpertWeights::b2}) {
    const std::vector<float>& from = experts.*array;
    const std::int64_t size = static_cast<std::int64_t>(from.size()) / count;
    for (const std::uint16_t e : of) (out.*array).insert((out.*array).end(), from.begin() + e * size, from.begin() + (e + 1) * size);
  }
  return out;
}

}  // namespace

std::vector<ExpertsSeen> see_experts(const Training& t, const TrainState& state, const std::vector<TextBatch>& batches) {
  std::vector<ExpertsSeen> seen;
  for (int l = 0; l < t.model.shape.layers; ++l) seen.emplace_back(l, t.model.shape.moe.experts);
  double tokens = 0;
  for (const TextBatch& batch : batches) {
    const TextForward f = forward(t.model, state.weights, batch, state.bias);
    tokens += static_cast<double>(batch.tokens());
    for (std::size_t l = 0; l < seen.size(); ++l) {
      const TextBlockForward& block = f.blocks[l];
      seen[l].add(routing_of(block.moe.routed));
      seen[l].add_products(only(columns_of(unchanged(t.model.shape.moe.experts), 0), block.moe.logits, static_cast<std::size_t>(t.model.shape.moe.columns())));
      see_outputs(t.model.shape.moe, state.weights.blocks[l].moe.experts, block.moe_normed, block.moe.routed, seen[l]);
    }
  }
  for (ExpertsSeen& of_layer : seen) {
    for (double& sum : of_layer.mean_output.cells) sum /= tokens;
    for (std::size_t e = 0; e < of_layer.choices.size(); ++e)
      if (of_layer.choices[e] > 0) of_layer.saliency[e] /= static_cast<double>(of_layer.choices[e]);
  }
  return seen;
}

CompressedTraining compressed(Training columns, const TrainState& state, std::vector<ExpertMap> maps, const std::vector<ExpertsSeen>& seen, bool align) {
  ensure(!columns.model.moe.capacity.limits, "a model is made smaller without a capacity");
  CompressedTraining out{std::move(columns), {}, std::move(maps), {}, 0};
  const LayerShape& s = out.training.model.shape.moe;
  out.state.weights = state.weights, out.state.bias = state.bias;
  for (std::size_t l = 0; l < out.maps.size(); ++l) {
    const ExpertMap& map = out.maps[l];
    map.check();
    const std::vector<std::size_t> left = columns_of(map, s.idle.count());
    const std::size_t width = map.to.size() + static_cast<std::size_t>(s.idle.count());
    ensure(left.size() == static_cast<std::size_t>(s.columns()), "the gate has a column for each expert that is not pruned");
    LayerWeights& w = out.state.weights.blocks[l].moe;
    w.gate = only(left, w.gate, width), w.linear_bias = only(left, w.linear_bias, width);
    w.experts = in_places(merged_experts(s.expert(), w.experts, map, seen[l].choices, align), map.experts, map.of_the_rest().to);
    if (!out.state.bias.empty()) out.state.bias[l] = only(left, out.state.bias[l], width);
  }
  for (const TextModelTensor& a : tensors(out.training.model.shape, out.state.weights)) {
    const auto size = static_cast<std::int64_t>(a.values->size());
    out.parameters += a.role == TextModelTensor::Role::experts ? size / s.experts * out.maps.front().experts : size;
  }
  Router& router = out.training.model.moe.router;
  out.gate = router;
  if (std::ranges::any_of(out.maps, [](const ExpertMap& m) { return m.skip_below > 0; })) router = skipping(router, out.maps);
  return out;
}

CompressionMeasure measure(const Training& whole, const TrainState& before, const CompressedTraining& c) {
  const std::vector<TextBatch> batches = evaluation_batches(c.training);
  const TextModel& model = c.training.model;
  const auto layers = static_cast<std::size_t>(model.shape.layers);
  CompressionMeasure out;
  std::vector<double> change(layers), length(layers);
  std::vector<std::vector<std::int64_t>> counts(layers, std::vector<std::int64_t>(static_cast<std::size_t>(c.maps.front().experts)));
  for (const TextBatch& batch : batches) {
    const TextForward f = forward(model, c.state.weights, batch, c.state.bias), old = forward(whole.model, before.weights, batch, before.bias);
    out.held_out_loss += f.cross_entropy / static_cast<double>(batches.size());
    for (std::size_t l = 0; l < layers; ++l) {
      const std::vector<float>& y = old.blocks[l].moe.y;
      const LayerForward now = forward(model.moe, c.state.weights.blocks[l].moe, {old.blocks[l].moe_normed, gate_batch(model, batch, old, static_cast<int>(l), c.state.bias)});
      for (std::size_t i = 0; i < y.size(); ++i) change[l] += std::pow(double{now.y[i]} - double{y[i]}, 2), length[l] += double{y[i]} * double{y[i]};
      Routing routing = routing_of(f.blocks[l].moe.routed);
      const auto k = static_cast<std::size_t>(routing.top_k);
      const ExpertMap of_columns = c.maps[l].of_the_rest();
      for (std::size_t t = 0; t < routing.expert.size(); t += k) compress(of_columns, std::span(routing.expert).subspan(t, k), std::span(routing.weight).subspan(t, k));
      for (const std::uint16_t e : routing.expert)
        if (e < counts[l].size()) ++counts[l][e];
    }
  }
  const double tokens = static_cast<double>(batches.size()) * static_cast<double>(batches.front().tokens());
  for (std::size_t l = 0; l < layers; ++l) {
    out.error.push_back(length[l] > 0 ? std::sqrt(change[l] / length[l]) : 0);
    double all = 0;
    for (const std::int64_t n : counts[l]) all += static_cast<double>(n);
    out.choices += all / tokens / static_cast<double>(layers);
    if (all > 0) out.imbalance += static_cast<double>(*std::ranges::max_element(counts[l])) * static_cast<double>(counts[l].size()) / all / static_cast<double>(layers);
  }
  return out;
}

std::string compressed_trace(const CompressedTraining& c) {
  const TextModel& model = c.training.model;
  const std::vector<TextBatch> batches = trace_batches(c.training);
  if (batches.empty()) return {};
  Recording recording;
  recording.rows = model.shape.layers, recording.experts = static_cast<int>(c.maps.front().to.size());
  std::vector<std::vector<std::size_t>> columns;
  for (int l = 0; l < model.shape.layers; ++l) recording.layers.push_back(l), columns.push_back(columns_of(c.maps[static_cast<std::size_t>(l)], 0));
  RecordedChoices choices;
  choices.top_k = c.gate.top_k;
  const auto k = static_cast<std::size_t>(c.gate.top_k);
  for (const TextBatch& batch : batches) {
    const TextForward f = forward(model, c.state.weights, batch, c.state.bias);
    const auto wanted = static_cast<std::size_t>(batch.tokens()) * k;
    std::vector<std::vector<std::int32_t>> ids(columns.size(), std::vector<std::int32_t>(wanted));
    std::vector<std::vector<float>> weights(columns.size(), std::vector<float>(wanted));
    for (std::size_t l = 0; l < columns.size(); ++l) choose(c.gate, gate_batch(model, batch, f, static_cast<int>(l), c.state.bias), ids[l], weights[l]);
    for (std::size_t t = 0; t < wanted; t += k)
      for (std::size_t l = 0; l < columns.size(); ++l)
        for (std::size_t i = t; i < t + k; ++i) {
          if (ids[l][i] < 0 || static_cast<std::size_t>(ids[l][i]) >= columns[l].size()) return {};
          choices.experts.push_back(static_cast<std::int32_t>(columns[l][static_cast<std::size_t>(ids[l][i])]));
          if (c.training.trace_weights) choices.weights.push_back(weights[l][i]);
        }
    choices.tokens += batch.tokens();
  }
  recording.data = std::move(choices);
  return to_trace(recording);
}

}  // namespace epsim
