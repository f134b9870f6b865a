#pragma once
#include <cmath>
#include <vector>

#include "sim/moe/layer.h"

namespace epsim::testing {

/// An activation in double precision, straight from its definition.
inline double oracle_activation(Activation activation, double g, double u, bool gated) {
  const double by = gated ? u : 1;
  switch (activation) {
    case Activation::swiglu: return g / (1 + std::exp(-g)) * u;
    case Activation::clamped_swiglu: {
      const double x = std::min(g, 7.0), v = std::clamp(u, -7.0, 7.0);
      return (v + 1) * x / (1 + std::exp(-1.702 * x));
    }
    case Activation::gelu: return g * std::erfc(-g / std::sqrt(2.0)) / 2 * by;
    case Activation::gelu_tanh: return g * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g))) / 2 * by;
    case Activation::relu: return std::max(g, 0.0) * by;
  }
  return NAN;
}

/// A layer's numbers in double precision.
struct OracleLayer {
  LayerShape shape;
  std::vector<std::vector<double>> weights;  ///< in the order of `tensors`
  std::vector<double> x;

  OracleLayer(const LayerShape& s, LayerWeights w, const std::vector<float>& rows) : shape(s), x(rows.begin(), rows.end()) {
    for (const LayerTensor& t : tensors(s, w)) weights.emplace_back(t.values->begin(), t.values->end());
  }

  /// The experts of the arrays from `first` on, with one token: adds factor * FFN(scale x) to y.
  void add_expert(std::size_t first, std::int64_t ffn, std::int64_t expert, const double* token, double scale, double factor, double* y) const {
    const std::int64_t h = shape.hidden;
    const auto &w1 = weights[first], &w3 = weights[first + 1], &w2 = weights[first + 2], &b1 = weights[first + 3], &b3 = weights[first + 4], &b2 = weights[first + 5];
    for (std::int64_t j = 0; j < ffn; ++j) {
      double g = b1.empty() ? 0 : b1[expert * ffn + j], u = b3.empty() ? 0 : b3[expert * ffn + j];
      for (std::int64_t i = 0; i < h; ++i) {
        g += scale * token[i] * w1[(expert * h + i) * ffn + j];
        if (!w3.empty()) u += scale * token[i] * w3[(expert * h + i) * ffn + j];
      }
      const double a = oracle_activation(shape.activation, g, u, !w3.empty());
      for (std::int64_t o = 0; o < h; ++o) y[o] += factor * a * w2[(expert * ffn + j) * h + o];
    }
    for (std::int64_t o = 0; o < h && !b2.empty(); ++o) y[o] += factor * b2[expert * h + o];
  }

  /// The `place`-th expert that computes nothing, with one token: adds factor times 0, x, or softmax(x W) . (x, v) to y.
  void add_idle(int place, const double* token, double factor, double* y) const {
    const std::int64_t h = shape.hidden;
    if (place < shape.idle.zero) return;
    const int constant = place - shape.idle.zero - shape.idle.identity;
    double of_token = 1, of_vector = 0;
    if (constant >= 0) {
      double logits[2] = {0, 0};
      for (std::int64_t i = 0; i < 2 * h; ++i) logits[i % 2] += token[i / 2] * weights[16][2 * constant * h + i];
      of_token = std::exp(logits[0]) / (std::exp(logits[0]) + std::exp(logits[1])), of_vector = 1 - of_token;
    }
    for (std::int64_t i = 0; i < h; ++i) y[i] += factor * (of_token * token[i] + (constant >= 0 ? of_vector * weights[15][constant * h + i] : 0));
  }

  /// y for given choices, whose weights are `weight` [T][k].
  std::vector<double> forward(const Routed& routed, const std::vector<double>& weight) const {
    const std::int64_t h = shape.hidden;
    std::vector<double> y(x.size());
    for (std::int64_t t = 0; t < routed.tokens; ++t) {
      const double* token = x.data() + t * h;
      for (std::int64_t c = t * routed.top_k; c < (t + 1) * routed.top_k; ++c)
        if (routed.expert[c] >= shape.experts && routed.kept[c])
          add_idle(routed.expert[c] - shape.experts, token, weight[c], y.data() + t * h);
        else if (routed.expert[c] >= 0 && routed.kept[c])
          add_expert(2, shape.ffn, routed.expert[c], token, shape.weigh_input ? weight[c] : 1, shape.weigh_input ? 1 : weight[c], y.data() + t * h);
      if (shape.shared_ffn == 0) continue;
      double scale = 1;
      if (const auto& gate = weights[14]; !gate.empty()) {
        double s = 0;
        for (std::int64_t i = 0; i < h; ++i) s += token[i] * gate[i];
        scale = 1 / (1 + std::exp(-s));
      }
      add_expert(8, shape.shared_ffn, 0, token, 1, scale, y.data() + t * h);
    }
    return y;
  }

  std::vector<double> logits() const {
    const std::int64_t h = shape.hidden, tokens = static_cast<std::int64_t>(x.size()) / h, e = shape.columns();
    std::vector<double> out(tokens * e);
    for (std::int64_t t = 0; t < tokens; ++t)
      for (std::int64_t j = 0; j < e; ++j) {
        double sum = weights[1].empty() ? 0 : weights[1][j];
        for (std::int64_t i = 0; i < h; ++i) sum += x[t * h + i] * weights[0][i * e + j];
        out[t * e + j] = sum;
      }
    return out;
  }
};

}  // namespace epsim::testing
