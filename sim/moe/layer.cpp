#include "sim/moe/layer.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/parallel.h"
#include "sim/moe/buffers.h"
#include "sim/moe/idle.h"
#include "sim/moe/vectors.h"

namespace epsim {
namespace {

std::size_t sized(std::int64_t count) { return static_cast<std::size_t>(count); }

/// Rows [first, first + count) of expert `expert`, or of the tokens.
struct Block {
  int expert;
  std::int64_t first, count;
};

std::vector<Block> blocks_of(std::int64_t rows, int expert = 0, std::int64_t begin = 0) {
  std::vector<Block> blocks;
  for (std::int64_t first = 0; first < rows; first += kBlockRows) blocks.push_back({expert, begin + first, std::min(kBlockRows, rows - first)});
  return blocks;
}

/// The experts that this process computes.
struct Mine {
  std::int64_t first, last;
};

std::vector<Block> blocks_of(const Dispatch& d, Mine mine) {
  std::vector<Block> blocks;
  for (std::int64_t e = mine.first; e < mine.last; ++e)
    for (const Block& b : blocks_of(d.first[sized(e) + 1] - d.first[sized(e)], static_cast<int>(e), d.first[sized(e)])) blocks.push_back(b);
  return blocks;
}

template <class Work>
void for_each(const std::vector<Block>& blocks, Work&& work) {
  parallel_for(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t i) { work(blocks[sized(i)]); });
}

/// out [rows][outer] = left times right, in parallel.
void multiply(const RightSide& right, const float* left, std::int64_t rows, float* out, bool add = false) {
  for_each(blocks_of(rows), [&](const Block& b) { right.multiply(left + b.first * right.inner(), b.count, out + b.first * right.outer(), add); });
}

/// The experts of ours that have rows, packed.
template <class Packed>
std::vector<Packed> pack(const LayerShape& s, const ExpertWeights& weights, const Dispatch& d, Mine mine) {
  std::vector<Packed> experts(sized(s.experts));
  parallel_for(mine.last - mine.first, [&](std::int64_t i) {
    const std::int64_t e = mine.first + i;
    if (d.first[sized(e)] < d.first[sized(e) + 1]) experts[sized(e)] = Packed(s.expert(), view_of(weights, s.expert(), e));
  });
  return experts;
}

float sigmoid(float x) { return static_cast<float>(1 / (1 + std::exp(-double{x}))); }

/// A layer's parts in the middle of a pass.
class Pass {
 public:
  Pass(const MoeLayer& layer, const LayerWeights& weights, const LayerTokens& tokens)
      : layer_(layer), s_(layer.shape), w_(weights), in_(tokens), tokens_(static_cast<std::int64_t>(tokens.x.size()) / s_.hidden), gated_(!weights.experts.w3.empty()),
        mine_(layer.block ? Mine{layer.block->first, layer.block->last} : Mine{0, layer.shape.experts}), idle_(s_, w_, in_.x) {
    ensure(layer.router.idle == s_.idle, "a layer has the experts that its router knows of");
    ensure(w_.constant.size() == sized(s_.idle.constant * s_.hidden) && w_.constant_gate.size() == 2 * w_.constant.size(), "each constant expert has a vector and a matrix");
    ensure(s_.experts > 0 && sized(tokens_ * s_.hidden) == in_.x.size(), "a layer computes whole tokens");
    ensure(w_.gate.size() == sized(s_.hidden * s_.columns()) && w_.experts.w1.size() == sized(s_.experts * s_.hidden * s_.ffn), "a layer has weights of its shape");
  }

  LayerForward forward() const {
    LayerForward f;
    f.logits.resize(sized(tokens_ * s_.columns()));
    multiply(RightSide(s_.hidden, s_.columns(), w_.gate.data(), false, Precision::fp32), in_.x.data(), tokens_, f.logits.data());
    if (!w_.linear_bias.empty())
      for (std::int64_t t = 0; t < tokens_; ++t) add_to(f.logits.data() + t * s_.columns(), w_.linear_bias.data(), s_.columns());
    f.routed = route_batch(layer_.router, layer_.capacity, gate_batch(layer_, in_, f.logits));
    f.dispatch = dispatch(f.routed);
    const std::vector<float> out = experts_forward(f), shared = shared_forward(f);
    f.y.resize(in_.x.size());
    for_each(blocks_of(tokens_), [&](const Block& b) { combine(f, out, shared, b); });
    return f;
  }

  LayerGradients backward(const LayerForward& f, std::span<const float> dy, std::span<const float> more_dlogits) const {
    ensure(dy.size() == in_.x.size() && (more_dlogits.empty() || more_dlogits.size() == f.logits.size()), "gradients have the shapes of what they are gradients of");
    LayerGradients grad{std::vector<float>(in_.x.size()), zeros_like(w_)};
    std::vector<float> dweight(f.dispatch.row.size());
    const std::vector<float> dx = experts_backward(f, dy, dweight, grad.weights.experts);
    if (s_.idle.count() > 0) idle_.backward(f.routed, dy, grad.x, dweight, grad.weights);
    std::vector<float> dlogits(f.logits.size());
    route_backward(layer_.router, layer_.capacity, gate_batch(layer_, in_, f.logits), f.routed, dweight, dlogits);
    if (!more_dlogits.empty()) add_to(dlogits.data(), more_dlogits.data(), static_cast<std::int64_t>(dlogits.size()));
    for_each(blocks_of(tokens_), [&](const Block& b) {
      const int k = f.routed.top_k;
      for (std::int64_t t = b.first; t < b.first + b.count; ++t)
        for (std::int64_t c = t * k; c < (t + 1) * k; ++c)
          if (const std::int64_t row = f.dispatch.row[sized(c)]; row >= 0) add_to(grad.x.data() + t * s_.hidden, dx.data() + row * s_.hidden, s_.hidden);
    });
    if (s_.shared_ffn > 0) shared_backward(f, dy, grad);
    multiply(RightSide(s_.columns(), s_.hidden, w_.gate.data(), true, Precision::fp32), dlogits.data(), tokens_, grad.x.data(), true);
    sum_outer_products(in_.x.data(), s_.hidden, dlogits.data(), s_.columns(), tokens_, grad.weights.gate.data());
    if (!w_.linear_bias.empty()) sum_rows(nullptr, dlogits.data(), s_.columns(), tokens_, grad.weights.linear_bias.data());
    return grad;
  }

 private:
  /// Fills in what other processes computed of some rows.
  void complete(const LayerForward& f, std::vector<float>& rows, std::int64_t width) const {
    if (layer_.block) layer_.block->complete(rows, width, f.dispatch.first);
  }

  float weight_of(const LayerForward& f, std::int64_t row) const { return f.routed.weight_after[sized(f.dispatch.choice[sized(row)])]; }
  std::int64_t token_of(const LayerForward& f, std::int64_t row) const { return f.dispatch.choice[sized(row)] / f.routed.top_k; }

  /// Copies the vectors of some rows' tokens side by side, as the expert gets them where `as_input`.
  void gather(const LayerForward& f, const Block& b, const float* from, bool as_input, float* to) const {
    for (std::int64_t row = b.first; row < b.first + b.count; ++row, to += s_.hidden) {
      std::copy_n(from + token_of(f, row) * s_.hidden, s_.hidden, to);
      if (as_input && s_.weigh_input) scale_by(to, weight_of(f, row), s_.hidden);
    }
  }

  std::vector<float> experts_forward(LayerForward& f) const {
    const std::int64_t rows = f.dispatch.rows();
    const std::vector<Ffn> experts = pack<Ffn>(s_, w_.experts, f.dispatch, mine_);
    f.g.resize(sized(rows * s_.ffn));
    f.u.resize(gated_ ? f.g.size() : 0);
    std::vector<float> out(sized(rows * s_.hidden));
    for_each(blocks_of(f.dispatch, mine_), [&](const Block& b) {
      std::vector<float> x(sized(b.count * s_.hidden));
      gather(f, b, in_.x.data(), true, x.data());
      experts[sized(b.expert)].forward(x.data(), b.count, f.g.data() + b.first * s_.ffn, gated_ ? f.u.data() + b.first * s_.ffn : nullptr, out.data() + b.first * s_.hidden);
    });
    complete(f, out, s_.hidden);
    return out;
  }

  std::vector<float> shared_forward(LayerForward& f) const {
    if (s_.shared_ffn == 0) return {};
    const FfnShape shape = s_.shared();
    const Ffn shared(shape, view_of(w_.shared, shape, 0));
    const bool gated = !w_.shared.w3.empty();
    f.shared_g.resize(sized(tokens_ * shape.ffn));
    f.shared_u.resize(gated ? f.shared_g.size() : 0);
    f.shared_scale.resize(w_.shared_gate.empty() ? 0 : sized(tokens_));
    std::vector<float> out(in_.x.size());
    for_each(blocks_of(tokens_), [&](const Block& b) {
      const float* x = in_.x.data() + b.first * s_.hidden;
      shared.forward(x, b.count, f.shared_g.data() + b.first * shape.ffn, gated ? f.shared_u.data() + b.first * shape.ffn : nullptr, out.data() + b.first * s_.hidden);
      for (std::int64_t t = 0; !f.shared_scale.empty() && t < b.count; ++t)
        f.shared_scale[sized(b.first + t)] = sigmoid(dot(x + t * s_.hidden, w_.shared_gate.data(), s_.hidden));
    });
    return out;
  }

  void combine(LayerForward& f, const std::vector<float>& out, const std::vector<float>& shared, const Block& b) const {
    const int k = f.routed.top_k;
    std::vector<WeightedRow> terms;
    std::vector<float> room(sized(s_.idle.constant > 0 ? k * s_.hidden : 0));
    for (std::int64_t t = b.first; t < b.first + b.count; ++t) {
      terms.clear();
      for (std::int64_t c = t * k; c < (t + 1) * k; ++c) {
        const std::int64_t row = f.dispatch.row[sized(c)];
        if (row >= 0) terms.push_back({out.data() + row * s_.hidden, s_.weigh_input ? 1.0F : f.routed.weight_after[sized(c)]});
        if (f.routed.expert[sized(c)] < s_.experts || !f.routed.kept[sized(c)]) continue;
        const float* given = idle_.row(t, f.routed.expert[sized(c)], room.empty() ? nullptr : room.data() + (c - t * k) * s_.hidden);
        if (given) terms.push_back({given, f.routed.weight_after[sized(c)]});
      }
      if (!shared.empty()) terms.push_back({shared.data() + t * s_.hidden, f.shared_scale.empty() ? 1.0F : f.shared_scale[sized(t)]});
      add_rows(terms, {f.y.data() + t * s_.hidden, sized(s_.hidden)});
    }
  }

  /// Gives each row's gradient to its token's vector, and fills in those of the weights of choices and of the experts.
  std::vector<float> experts_backward(const LayerForward& f, std::span<const float> dy, std::vector<float>& dweight, ExpertWeights& gradients) const {
    const FfnShape shape = s_.expert();
    const std::int64_t rows = f.dispatch.rows();
    std::vector<float> x(sized(rows * s_.hidden)), dyr(x.size()), dx(x.size()), scale, dscale(sized(rows));
    if (!s_.weigh_input) {
      scale.resize(sized(rows));
      for (std::int64_t row = 0; row < rows; ++row) scale[sized(row)] = weight_of(f, row);
    }
    const auto or_null = [](auto& v) { return v.empty() ? nullptr : v.data(); };
    FfnFactors factors(shape, gated_, rows);
    const FfnRows all = factors.of({.rows = rows,
                                    .x = x.data(),
                                    .dy = dyr.data(),
                                    .scale = or_null(scale),
                                    .g = f.g.data(),
                                    .u = or_null(f.u),
                                    .dx = dx.data(),
                                    .dscale = s_.weigh_input ? nullptr : or_null(dscale)});
    {
      const std::vector<FfnBackward> experts = pack<FfnBackward>(s_, w_.experts, f.dispatch, mine_);
      for_each(blocks_of(f.dispatch, mine_), [&](const Block& b) {
        gather(f, b, in_.x.data(), true, x.data() + b.first * s_.hidden);
        gather(f, b, dy.data(), false, dyr.data() + b.first * s_.hidden);
        experts[sized(b.expert)].backward(all.part(b.first, b.count, shape));
        for (std::int64_t row = b.first; s_.weigh_input && row < b.first + b.count; ++row) {
          float* of_row = dx.data() + row * s_.hidden;
          dscale[sized(row)] = dot(of_row, in_.x.data() + token_of(f, row) * s_.hidden, s_.hidden);
          scale_by(of_row, weight_of(f, row), s_.hidden);
        }
      });
    }
    complete(f, dx, s_.hidden);
    complete(f, dscale, 1);
    for (std::int64_t row = 0; row < rows; ++row) dweight[sized(f.dispatch.choice[sized(row)])] = dscale[sized(row)];
    parallel_for(3 * (mine_.last - mine_.first), [&](std::int64_t i) {
      const std::int64_t e = mine_.first + i / 3, first = f.dispatch.first[sized(e)];
      weight_gradient(shape, all.part(first, f.dispatch.first[sized(e) + 1] - first, shape), static_cast<FfnMatrix>(i % 3), slice_of(gradients, shape, e));
    });
    return dx;
  }

  void shared_backward(const LayerForward& f, std::span<const float> dy, LayerGradients& grad) const {
    const FfnShape shape = s_.shared();
    std::vector<float> dx(in_.x.size()), dscale(f.shared_scale.size());
    const auto or_null = [](auto& v) { return v.empty() ? nullptr : v.data(); };
    FfnFactors factors(shape, !w_.shared.w3.empty(), tokens_);
    const FfnRows all = factors.of({.rows = tokens_,
                                    .x = in_.x.data(),
                                    .dy = dy.data(),
                                    .scale = or_null(f.shared_scale),
                                    .g = f.shared_g.data(),
                                    .u = or_null(f.shared_u),
                                    .dx = dx.data(),
                                    .dscale = or_null(dscale)});
    const FfnBackward shared(shape, view_of(w_.shared, shape, 0));
    for_each(blocks_of(tokens_), [&](const Block& b) {
      shared.backward(all.part(b.first, b.count, shape));
      add_to(grad.x.data() + b.first * s_.hidden, dx.data() + b.first * s_.hidden, b.count * s_.hidden);
      for (std::int64_t t = b.first; !dscale.empty() && t < b.first + b.count; ++t) {
        dscale[sized(t)] *= f.shared_scale[sized(t)] * (1.0F - f.shared_scale[sized(t)]);
        add_scaled(grad.x.data() + t * s_.hidden, dscale[sized(t)], w_.shared_gate.data(), s_.hidden);
      }
    });
    parallel_for(3, [&](std::int64_t i) { weight_gradient(shape, all, static_cast<FfnMatrix>(i), slice_of(grad.weights.shared, shape, 0)); });
    if (!dscale.empty()) sum_rows(dscale.data(), in_.x.data(), s_.hidden, tokens_, grad.weights.shared_gate.data());
  }

  const MoeLayer& layer_;
  const LayerShape& s_;
  const LayerWeights& w_;
  const LayerTokens& in_;
  std::int64_t tokens_;
  bool gated_;
  Mine mine_;
  IdlePass idle_;
};

}  // namespace

std::vector<LayerTensor> tensors(const LayerShape& s, LayerWeights& w) {
  const std::int64_t e = s.experts, h = s.hidden, f = s.ffn, q = s.shared_ffn;
  return {{"gate", {h, s.columns()}, &w.gate},
          {"linear_bias", {s.columns()}, &w.linear_bias},
          {"w1", {e, h, f}, &w.experts.w1},
          {"w3", {e, h, f}, &w.experts.w3},
          {"w2", {e, f, h}, &w.experts.w2},
          {"b1", {e, f}, &w.experts.b1},
          {"b3", {e, f}, &w.experts.b3},
          {"b2", {e, h}, &w.experts.b2},
          {"shared_w1", {h, q}, &w.shared.w1},
          {"shared_w3", {h, q}, &w.shared.w3},
          {"shared_w2", {q, h}, &w.shared.w2},
          {"shared_b1", {q}, &w.shared.b1},
          {"shared_b3", {q}, &w.shared.b3},
          {"shared_b2", {h}, &w.shared.b2},
          {"shared_gate", {h}, &w.shared_gate},
          {"constant", {s.idle.constant, h}, &w.constant},
          {"constant_gate", {s.idle.constant, h, 2}, &w.constant_gate}};
}

LayerWeights zeros_like(const LayerWeights& weights) {
  LayerWeights zeros = weights;
  for (const LayerTensor& t : tensors({}, zeros)) std::ranges::fill(*t.values, 0.0F);
  return zeros;
}

GateBatch gate_batch(const MoeLayer& layer, const LayerTokens& tokens, std::span<const float> logits) {
  GateBatch batch = tokens.batch;
  batch.tokens = static_cast<std::int64_t>(tokens.x.size()) / layer.shape.hidden;
  batch.experts = layer.shape.columns();
  batch.logits = logits;
  return batch;
}

LayerForward forward(const MoeLayer& layer, const LayerWeights& weights, const LayerTokens& tokens) { return Pass(layer, weights, tokens).forward(); }

LayerGradients backward(const MoeLayer& layer, const LayerWeights& weights, const LayerTokens& tokens, const LayerForward& f, std::span<const float> dy, std::span<const float> dlogits) {
  return Pass(layer, weights, tokens).backward(f, dy, dlogits);
}

}  // namespace epsim
