#include "sim/train/text_model.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/check.h"
#include "base/rng.h"
#include "sim/moe/activation.h"
#include "sim/moe/expert.h"
#include "sim/moe/vectors.h"
#include "sim/train/dense.h"

namespace epsim {
namespace {

using Role = TextModelTensor::Role;

void add(std::vector<float>& sum, const std::vector<float>& term) { add_to(sum.data(), term.data(), static_cast<std::int64_t>(sum.size())); }

/// Numbers of an array of its own, uniform with the given variance.
std::vector<float> seeded(std::uint64_t seed, int layer, int array, std::int64_t count, double variance) {
  constexpr std::uint64_t kBehindExperts = std::uint64_t{1} << 40;  // experts' weights have the numbers below
  Rng rng(seed, Stream::weights, kBehindExperts + static_cast<std::uint64_t>(array), static_cast<std::uint32_t>(layer));
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& v : values) v = static_cast<float>((2 * rng.uniform() - 1) * std::sqrt(3 * variance));
  return values;
}

void append(std::vector<float>& to, const std::vector<float>& more) { to.insert(to.end(), more.begin(), more.end()); }

/// Scales down what is added to the residual stream, so that its variance does not grow with depth (GPT-2).
void damp(std::vector<float>& values, int layers) { scale_by(values.data(), 1.0F / std::sqrt(2.0F * static_cast<float>(layers)), static_cast<std::int64_t>(values.size())); }

}  // namespace

std::vector<TextModelTensor> tensors(const TextModelShape& s, TextModelWeights& w) {
  const std::int64_t h = s.moe.hidden;
  std::vector<TextModelTensor> all = {{"embedding", {kBytes, h}, &w.embedding, Role::matrix}};
  for (std::size_t l = 0; l < w.blocks.size(); ++l) {
    TextBlockWeights& b = w.blocks[l];
    const std::string at = fmt::format("layer{}.", l);
    all.push_back({at + "mixer_norm", {h}, &b.mixer_norm, Role::gain});
    all.push_back({at + "mixer_taps", {s.taps, h}, &b.mixer_taps, Role::matrix});
    all.push_back({at + "mixer_gate", {h, h}, &b.mixer_gate, Role::matrix});
    all.push_back({at + "mixer_out", {h, h}, &b.mixer_out, Role::matrix});
    all.push_back({at + "moe_norm", {h}, &b.moe_norm, Role::gain});
    const auto role_of = [&b](const std::vector<float>* values) {
      if (values == &b.moe.gate || values == &b.moe.constant_gate) return Role::router;
      if (values == &b.moe.constant) return Role::gain;
      return values == &b.moe.experts.w1 || values == &b.moe.experts.w2 || values == &b.moe.experts.w3 ? Role::experts : Role::matrix;
    };
    for (const LayerTensor& t : tensors(s.moe, b.moe))
      if (!t.values->empty()) all.push_back({at + t.name, t.shape, t.values, role_of(t.values)});
  }
  all.push_back({"norm", {h}, &w.norm, Role::gain});
  all.push_back({"head", {h, kBytes}, &w.head, Role::matrix});
  return all;
}

TextModelWeights make_weights(const TextModelShape& s, const TextModelInit& init) {
  const std::int64_t h = s.moe.hidden;
  const double of_matrix = 1.0 / static_cast<double>(h);
  const std::vector<float> ones(static_cast<std::size_t>(h), 1.0F);
  TextModelWeights w;
  w.embedding = seeded(init.seed, 0, 0, kBytes * h, 1);
  for (int l = 0; l < s.layers; ++l) {
    TextBlockWeights b;
    b.mixer_norm = b.moe_norm = ones;
    b.mixer_taps = seeded(init.seed, l, 1, s.taps * h, 1.0 / s.taps);
    b.mixer_gate = seeded(init.seed, l, 2, h * h, of_matrix);
    b.mixer_out = seeded(init.seed, l, 3, h * h, of_matrix);
    damp(b.mixer_out, s.layers);
    b.moe.gate = seeded(init.seed, l, 4, h * s.moe.columns(), init.router_scale * init.router_scale * of_matrix);
    for (int e = 0; e < s.moe.experts; ++e) {
      const ExpertWeights expert = make_expert_weights(init.seed, l, init.same_experts ? 0 : e, h, s.moe.ffn);
      append(b.moe.experts.w1, expert.w1), append(b.moe.experts.w3, expert.w3), append(b.moe.experts.w2, expert.w2);
    }
    damp(b.moe.experts.w2, s.layers);
    if (s.moe.shared_ffn > 0) {
      b.moe.shared = make_expert_weights(init.seed, l, kSharedExpert, h, s.moe.shared_ffn);
      damp(b.moe.shared.w2, s.layers);
    }
    ConstantWeights constants = make_constant_weights(init.seed, l, s.moe.idle.constant, h);
    b.moe.constant = std::move(constants.vectors), b.moe.constant_gate = std::move(constants.matrices);
    w.blocks.push_back(std::move(b));
  }
  w.norm = ones;
  w.head = seeded(init.seed, 0, 5, h * kBytes, of_matrix / 16);  // small: the first guess is nearly even
  return w;
}

GateBatch gate_batch(const TextModel& model, const TextBatch& batch, const TextForward& f, int layer, std::span<const std::vector<float>> bias) {
  GateBatch gate;
  gate.tokens = batch.tokens(), gate.experts = model.shape.moe.columns();
  gate.token_ids = f.token_ids;
  if (!bias.empty()) gate.bias = bias[static_cast<std::size_t>(layer)];
  gate.seed = batch.seed, gate.layer = layer, gate.first_token = batch.first_token, gate.training = batch.training;
  if (static_cast<std::size_t>(layer) < f.blocks.size()) gate.logits = f.blocks[static_cast<std::size_t>(layer)].moe.logits;
  return gate;
}

TextForward forward(const TextModel& model, const TextModelWeights& w, const TextBatch& batch, std::span<const std::vector<float>> bias) {
  const std::int64_t h = model.shape.moe.hidden;
  ensure(static_cast<std::int64_t>(batch.bytes.size()) == batch.sequences * (batch.length + 1), "a batch has whole sequences");
  TextForward f;
  std::vector<float> x(static_cast<std::size_t>(batch.tokens() * h));
  for (std::int64_t t = 0; t < batch.tokens(); ++t) {
    const auto at = static_cast<std::size_t>(t + t / batch.length);
    f.token_ids.push_back(batch.bytes[at]), f.targets.push_back(batch.bytes[at + 1]);
    std::copy_n(w.embedding.data() + batch.bytes[at] * h, h, x.data() + t * h);
  }
  for (int l = 0; l < model.shape.layers; ++l) {
    const TextBlockWeights& b = w.blocks[static_cast<std::size_t>(l)];
    TextBlockForward now;
    now.in = x;
    auto [normed, scale] = rms_norm(x, b.mixer_norm);
    now.gate = multiplied(normed, h, h, b.mixer_gate);
    now.convolved = convolved(normed, batch.length, h, b.mixer_taps);
    now.mixed.resize(x.size());
    activate(Activation::swiglu, x.size(), now.gate.data(), now.convolved.data(), now.mixed.data());
    add(x, multiplied(now.mixed, h, h, b.mixer_out));
    now.normed = std::move(normed), now.scale = std::move(scale);
    now.moe_in = x;
    auto [moe_normed, moe_scale] = rms_norm(x, b.moe_norm);
    now.moe = forward(model.moe, b.moe, {moe_normed, gate_batch(model, batch, f, l, bias)});
    add(x, now.moe.y);
    now.moe_normed = std::move(moe_normed), now.moe_scale = std::move(moe_scale);
    f.blocks.push_back(std::move(now));
  }
  auto [normed, scale] = rms_norm(x, w.norm);
  f.logits = multiplied(normed, h, kBytes, w.head);
  f.out = std::move(x), f.normed = std::move(normed), f.scale = std::move(scale);
  f.cross_entropy = cross_entropy(f.logits, kBytes, f.targets, nullptr);
  return f;
}

TextGradients backward(const TextModel& model, const TextModelWeights& w, const TextBatch& batch, const TextForward& f, std::span<const std::vector<float>> bias) {
  const std::int64_t h = model.shape.moe.hidden;
  TextGradients grad;
  std::vector<float> d_logits;
  cross_entropy(f.logits, kBytes, f.targets, &d_logits);
  grad.weights.head = matrix_gradient(f.normed, h, d_logits, kBytes);
  std::vector<float> dx(f.out.size());
  grad.weights.norm = rms_norm_backward(f.out, w.norm, f.scale, multiplied(d_logits, kBytes, h, w.head, true), dx);
  grad.weights.blocks.resize(w.blocks.size());
  for (int l = model.shape.layers - 1; l >= 0; --l) {
    const auto at = static_cast<std::size_t>(l);
    const TextBlockWeights& b = w.blocks[at];
    const TextBlockForward& now = f.blocks[at];
    TextBlockWeights& d = grad.weights.blocks[at];
    const GateBatch gate = gate_batch(model, batch, f, l, bias);
    std::vector<float> d_gate(model.losses.empty() ? 0 : now.moe.logits.size());
    for (const Loss& loss : model.losses) grad.losses += loss.value({gate, now.moe.routed, model.moe.router}, d_gate);
    LayerGradients moe = backward(model.moe, b.moe, {now.moe_normed, gate}, now.moe, dx, d_gate);
    d.moe = std::move(moe.weights);
    d.moe_norm = rms_norm_backward(now.moe_in, b.moe_norm, now.moe_scale, moe.x, dx);

    d.mixer_out = matrix_gradient(now.mixed, h, dx, h);
    const std::vector<float> d_mixed = multiplied(dx, h, h, b.mixer_out, true);
    std::vector<float> again(d_mixed.size()), d_mixer_gate(d_mixed.size()), d_convolved(d_mixed.size());
    activate_backward(Activation::swiglu, d_mixed.size(), now.gate.data(), now.convolved.data(), d_mixed.data(), 1.0F, again.data(), d_mixer_gate.data(), d_convolved.data());
    d.mixer_gate = matrix_gradient(now.normed, h, d_mixer_gate, h);
    auto [d_normed, d_taps] = convolved_backward(now.normed, batch.length, h, b.mixer_taps, d_convolved);
    d.mixer_taps = std::move(d_taps);
    add(d_normed, multiplied(d_mixer_gate, h, h, b.mixer_gate, true));
    d.mixer_norm = rms_norm_backward(now.in, b.mixer_norm, now.scale, d_normed, dx);
  }
  grad.weights.embedding.resize(w.embedding.size());
  for (std::size_t t = 0; t < f.token_ids.size(); ++t) add_to(grad.weights.embedding.data() + f.token_ids[t] * h, dx.data() + static_cast<std::int64_t>(t) * h, h);
  return grad;
}

}  // namespace epsim
