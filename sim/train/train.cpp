#include "sim/train/train.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/parallel.h"
#include "sim/moe/ffn.h"
#include "sim/moe/vectors.h"

namespace epsim {
namespace {

using Role = TextModelTensor::Role;

TextBatch batch_of(const Training& t, bool training) {
  TextBatch batch;
  batch.sequences = t.batch, batch.length = t.sequence, batch.seed = t.seed, batch.training = training;
  return batch;
}

/// The experts as rows that `complete` gathers, one an expert.
std::vector<std::int64_t> expert_rows(const Training& t) {
  std::vector<std::int64_t> first(static_cast<std::size_t>(t.model.shape.moe.experts) + 1);
  std::iota(first.begin(), first.end(), 0);
  return first;
}

/// The experts that this process computes.
ExpertBlock mine(const Training& t) { return t.model.moe.block.value_or(ExpertBlock{0, t.model.shape.moe.experts, {}}); }

void complete(const Training& t, std::span<float> values, std::int64_t width) {
  if (t.model.moe.block) t.model.moe.block->complete(values, width, expert_rows(t));
}

double squares(std::span<const float> values) {
  double sum = 0;
  for (const float v : values) sum += double{v} * v;
  return sum;
}

/// The length of the gradient: experts' parts one by one, whoever has them.
double norm(const Training& t, const std::vector<TextModelTensor>& gradients) {
  const auto experts = static_cast<std::size_t>(t.model.shape.moe.experts);
  const ExpertBlock own = mine(t);
  double sum = 0;
  for (const TextModelTensor& g : gradients) {
    if (g.role != Role::experts) {
      sum += squares(*g.values);
      continue;
    }
    std::vector<float> parts(experts);
    const std::size_t size = g.values->size() / experts;
    for (auto e = static_cast<std::size_t>(own.first); e < static_cast<std::size_t>(own.last); ++e) parts[e] = static_cast<float>(squares(std::span(*g.values).subspan(e * size, size)));
    complete(t, parts, 1);
    for (const float part : parts) sum += part;
  }
  return std::sqrt(sum);
}

/// AdamW on numbers [first, last) of an array.
struct Update {
  float rate, decay, beta1, beta2, unbias1, unbias2, scale;

  void operator()(std::size_t first, std::size_t last, std::vector<float>& w, const std::vector<float>& g, std::vector<float>& mean, std::vector<float>& square) const {
    for (std::size_t i = first; i < last; ++i) {
      const float d = g[i] * scale;
      mean[i] = beta1 * mean[i] + (1.0F - beta1) * d;
      square[i] = beta2 * square[i] + (1.0F - beta2) * d * d;
      w[i] -= rate * (mean[i] * unbias1 / (std::sqrt(square[i] * unbias2) + 1e-8F) + decay * w[i]);
    }
  }
};

void update(const Training& t, TrainState& state, std::vector<TextModelTensor> gradients, double length) {
  const Optimiser& o = t.optimiser;
  const int n = state.step + 1;
  const double rising = o.warmup > 0 ? std::min(1.0, static_cast<double>(n) / o.warmup) : 1.0;
  const double share = rising * (1 - (1 - o.final_share) * state.step / std::max(1, t.steps - 1));
  const auto f = [](double v) { return static_cast<float>(v); };
  const Update plain{f(o.learning_rate * share), 0, f(o.beta1), f(o.beta2), f(1 / (1 - std::pow(o.beta1, n))), f(1 / (1 - std::pow(o.beta2, n))), f(o.clip > 0 && length > o.clip ? o.clip / length : 1)};
  std::vector<TextModelTensor> weights = tensors(t.model.shape, state.weights), means = tensors(t.model.shape, state.mean), square = tensors(t.model.shape, state.square);
  const ExpertBlock own = mine(t);
  parallel_for(static_cast<std::int64_t>(weights.size()), [&](std::int64_t at) {
    const auto a = static_cast<std::size_t>(at);
    Update u = plain;
    if (weights[a].role == Role::router) u.rate = f(o.router_learning_rate * share);
    if (weights[a].role == Role::matrix || weights[a].role == Role::experts) u.decay = f(o.weight_decay);
    const std::size_t size = weights[a].values->size(), part = weights[a].role == Role::experts ? size / static_cast<std::size_t>(t.model.shape.moe.experts) : 0;
    const std::size_t first = part * static_cast<std::size_t>(own.first), last = part ? part * static_cast<std::size_t>(own.last) : size;
    u(first, last, *weights[a].values, *gradients[a].values, *means[a].values, *square[a].values);
  });
}

/// Counts a batch's choices, and what they say.
void record_choices(const Training& t, const TextForward& f, TrainState& state, StepRecord& record) {
  const auto experts = static_cast<std::size_t>(t.model.shape.moe.experts), columns = static_cast<std::size_t>(t.model.shape.moe.columns());
  const auto sum_of = [](const std::vector<std::int64_t>& counts) { return std::accumulate(counts.begin(), counts.end(), std::int64_t{0}); };
  std::int64_t all = 0, all_kept = 0, unused = 0;
  for (const TextBlockForward& block : f.blocks) {
    const Routed& r = block.moe.routed;
    std::vector<std::int64_t> choices(columns), kept(columns);
    for (std::size_t c = 0; c < r.expert.size(); ++c)
      if (r.expert[c] >= 0) ++choices[static_cast<std::size_t>(r.expert[c])], kept[static_cast<std::size_t>(r.expert[c])] += r.kept[c];
    const std::int64_t sum = sum_of(r.choices), most = *std::ranges::max_element(r.choices);
    all += sum_of(choices), all_kept += sum_of(kept);
    unused += std::ranges::count(r.choices, 0);
    if (sum > 0) record.imbalance += static_cast<double>(most) * static_cast<double>(experts) / static_cast<double>(sum) / static_cast<double>(f.blocks.size());
    state.choices.insert(state.choices.end(), choices.begin(), choices.end());
    state.kept.insert(state.kept.end(), kept.begin(), kept.end());
  }
  record.drop_rate = all > 0 ? static_cast<double>(all - all_kept) / static_cast<double>(all) : 0;
  record.unused_experts = static_cast<double>(unused) / static_cast<double>(experts * f.blocks.size());
}

void next_bias(const Training& t, const TextBatch& batch, const TextForward& f, TrainState& state) {
  for (int l = 0; l < t.model.shape.layers; ++l) {
    const GateBatch gate = gate_batch(t.model, batch, f, l, state.bias);
    const Routed& routed = f.blocks[static_cast<std::size_t>(l)].moe.routed;
    std::vector<float> bias = state.bias[static_cast<std::size_t>(l)];
    for (const Loss& loss : t.model.losses)
      if (loss.next_bias) bias = loss.next_bias({gate, routed, t.model.moe.router}, bias);
    state.bias[static_cast<std::size_t>(l)] = std::move(bias);
  }
}

double cosine(std::span<const float> a, std::span<const float> b) {
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) ab += double{a[i]} * b[i], aa += double{a[i]} * a[i], bb += double{b[i]} * b[i];
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

/// The mean cosine of the outputs of pairs of experts for the first tokens of a batch, over layers.
double similarity_of_experts(const Training& t, const TrainState& state, const TextForward& f) {
  constexpr std::int64_t kTokens = 32;
  const LayerShape& s = t.model.shape.moe;
  if (s.experts < 2) return 0;
  const std::int64_t tokens = std::min<std::int64_t>(kTokens, static_cast<std::int64_t>(f.token_ids.size())), size = tokens * s.hidden;
  const ExpertBlock own = mine(t);
  double sum = 0;
  for (std::size_t l = 0; l < f.blocks.size(); ++l) {
    std::vector<float> out(static_cast<std::size_t>(s.experts * size));
    parallel_for(own.last - own.first, [&](std::int64_t i) {
      const std::int64_t e = own.first + i;
      std::vector<float> g(static_cast<std::size_t>(tokens * s.ffn)), u(g.size());
      Ffn(s.expert(), view_of(state.weights.blocks[l].moe.experts, s.expert(), e)).forward(f.blocks[l].moe_normed.data(), tokens, g.data(), u.data(), out.data() + e * size);
    });
    complete(t, out, size);
    const auto row = [&](std::int64_t e, std::int64_t token) { return std::span(out).subspan(static_cast<std::size_t>(e * size + token * s.hidden), static_cast<std::size_t>(s.hidden)); };
    double of_layer = 0;
    for (std::int64_t a = 0; a < s.experts; ++a)
      for (std::int64_t b = a + 1; b < s.experts; ++b)
        for (std::int64_t token = 0; token < tokens; ++token) of_layer += cosine(row(a, token), row(b, token));
    sum += of_layer / static_cast<double>(tokens * s.experts * (s.experts - 1) / 2);
  }
  return sum / static_cast<double>(f.blocks.size());
}

}  // namespace

TrainState begin_training(const Training& t) {
  TrainState state;
  state.weights = make_weights(t.model.shape, t.init);
  state.mean = state.weights;
  for (const TextModelTensor& a : tensors(t.model.shape, state.mean)) std::ranges::fill(*a.values, 0.0F);
  state.square = state.mean;
  if (t.biased()) state.bias.assign(static_cast<std::size_t>(t.model.shape.layers), std::vector<float>(static_cast<std::size_t>(t.model.shape.moe.columns())));
  return state;
}

void step(const Training& t, TrainState& state) {
  TextBatch batch = batch_of(t, true);
  fill_training_batch(t.text, state.step, batch);
  const TextForward f = forward(t.model, state.weights, batch, state.bias);
  TextGradients grad = backward(t.model, state.weights, batch, f, state.bias);
  const std::vector<TextModelTensor> gradients = tensors(t.model.shape, grad.weights);
  StepRecord record;
  record.cross_entropy = f.cross_entropy, record.loss = f.cross_entropy + grad.losses;
  record.gradient_norm = norm(t, gradients);
  record.held_out_loss = record.similarity = std::numeric_limits<double>::quiet_NaN();
  record_choices(t, f, state, record);
  update(t, state, gradients, record.gradient_norm);
  if (!state.bias.empty()) next_bias(t, batch, f, state);
  state.records.push_back(record);
  ++state.step;
}

std::vector<TextBatch> training_batches(const Training& t, int count) {
  std::vector<TextBatch> batches(static_cast<std::size_t>(count), batch_of(t, false));
  for (int b = 0; b < count; ++b) fill_training_batch(t.text, b, batches[static_cast<std::size_t>(b)]);
  return batches;
}

std::vector<TextBatch> evaluation_batches(const Training& t) {
  const std::int64_t there = held_out_sequences(t.text, t.sequence), count = std::min<std::int64_t>(t.held_out_batches, there / t.batch), stride = there / (count * t.batch);
  std::vector<TextBatch> batches(static_cast<std::size_t>(count), batch_of(t, false));
  for (std::int64_t b = 0; b < count; ++b) fill_held_out_batch(t.text, b * t.batch * stride, stride, batches[static_cast<std::size_t>(b)]);
  return batches;
}

std::vector<TextBatch> trace_batches(const Training& t) {
  const std::int64_t count = std::min(t.trace_tokens / (t.batch * t.sequence), held_out_sequences(t.text, t.sequence) / t.batch);
  std::vector<TextBatch> batches(static_cast<std::size_t>(count), batch_of(t, false));
  for (std::int64_t b = 0; b < count; ++b) fill_held_out_batch(t.text, b * t.batch, 1, batches[static_cast<std::size_t>(b)]);
  return batches;
}

Evaluation evaluate(const Training& t, const TrainState& state) {
  const std::vector<TextBatch> batches = evaluation_batches(t);
  Evaluation out;
  for (const TextBatch& batch : batches) {
    const TextForward f = forward(t.model, state.weights, batch, state.bias);
    out.loss += f.cross_entropy / static_cast<double>(batches.size());
    if (&batch == &batches.front()) out.similarity = similarity_of_experts(t, state, f);
  }
  return out;
}

void gather_experts(const Training& t, TrainState& state) {
  for (TextModelWeights* weights : {&state.weights, &state.mean, &state.square})
    for (const TextModelTensor& a : tensors(t.model.shape, *weights))
      if (a.role == Role::experts) complete(t, *a.values, static_cast<std::int64_t>(a.values->size()) / t.model.shape.moe.experts);
}

std::optional<Recording> held_out_choices(const Training& t, const TrainState& state) {
  const std::int64_t tokens = t.batch * t.sequence, layers = t.model.shape.layers;
  RecordedChoices choices;
  Recording recording;
  recording.rows = layers, recording.experts = t.model.shape.moe.experts;
  for (int l = 0; l < layers; ++l) recording.layers.push_back(l);
  for (const TextBatch& batch : trace_batches(t)) {
    const TextForward f = forward(t.model, state.weights, batch, state.bias);
    choices.top_k = f.blocks.front().moe.routed.top_k;
    for (std::int64_t token = 0; token < tokens; ++token)
      for (const TextBlockForward& block : f.blocks)
        for (std::int64_t c = token * choices.top_k; c < (token + 1) * choices.top_k; ++c) {
          const std::int32_t expert = block.moe.routed.expert[static_cast<std::size_t>(c)];
          if (expert < 0 || expert >= recording.experts) return {};
          choices.experts.push_back(expert);
          if (t.trace_weights) choices.weights.push_back(block.moe.routed.weight[static_cast<std::size_t>(c)]);
        }
    choices.tokens += tokens;
  }
  if (choices.tokens == 0) return {};
  recording.data = std::move(choices);
  return recording;
}

ParameterCount count_parameters(const Training& t) {
  TextModelWeights weights = make_weights(t.model.shape, t.init);
  const int experts = t.model.shape.moe.experts;
  ParameterCount count;
  for (const TextModelTensor& a : tensors(t.model.shape, weights)) {
    const auto size = static_cast<std::int64_t>(a.values->size());
    if (a.role == Role::router && t.model.shape.moe.columns() == 1) continue;
    count.all += size;
    if (std::ranges::any_of(weights.blocks, [&](const TextBlockWeights& b) { return a.values == &b.moe.constant || a.values == &b.moe.constant_gate; })) continue;  // it would be instead of an expert
    count.active += a.role == Role::experts ? size / experts * t.top_k : size;
  }
  return count;
}

}  // namespace epsim
