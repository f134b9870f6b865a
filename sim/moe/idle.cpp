#include "sim/moe/idle.h"

#include <algorithm>
#include <cmath>

#include "sim/moe/product.h"
#include "sim/moe/vectors.h"

namespace epsim {

IdlePass::Kind IdlePass::kind(int expert) const {
  const int place = expert - s_.experts;
  return place < s_.idle.zero ? Kind::zero : place < s_.idle.zero + s_.idle.identity ? Kind::identity : Kind::constant;
}

std::pair<float, float> IdlePass::shares(const float* x, std::size_t constant) const {
  const std::int64_t h = s_.hidden;
  const float* matrix = w_.constant_gate.data() + constant * static_cast<std::size_t>(2 * h);
  double difference = 0;  // of the two logits: their softmax is a sigmoid of it
  for (std::int64_t i = 0; i < h; ++i) difference += double{x[i]} * (double{matrix[2 * i]} - double{matrix[2 * i + 1]});
  const double token = 1 / (1 + std::exp(-difference));
  return {static_cast<float>(token), static_cast<float>(1 - token)};
}

const float* IdlePass::row(std::int64_t token, int expert, float* room) const {
  const float* x = x_.data() + token * s_.hidden;
  if (kind(expert) == Kind::zero) return nullptr;
  if (kind(expert) == Kind::identity) return x;
  const auto [of_token, of_vector] = shares(x, constant(expert));
  std::fill_n(room, s_.hidden, 0.0F);
  add_scaled(room, of_token, x, s_.hidden);
  add_scaled(room, of_vector, w_.constant.data() + constant(expert) * static_cast<std::size_t>(s_.hidden), s_.hidden);
  return room;
}

void IdlePass::forward(const Routed& routed, std::span<float> y) const {
  std::vector<float> room(static_cast<std::size_t>(s_.hidden));
  for (std::size_t c = 0; c < routed.expert.size(); ++c) {
    if (routed.expert[c] < s_.experts || !routed.kept[c]) continue;
    const std::int64_t token = static_cast<std::int64_t>(c) / routed.top_k;
    if (const float* given = row(token, routed.expert[c], room.data())) add_scaled(y.data() + token * s_.hidden, routed.weight_after[c], given, s_.hidden);
  }
}

void IdlePass::backward(const Routed& routed, std::span<const float> dy, std::span<float> dx, std::span<float> d_weight, LayerWeights& gradients) const {
  const std::int64_t h = s_.hidden, k = routed.top_k;
  // Of each constant expert's choices: x, dy, the scale of dy in dv, and the gradients of the two logits.
  struct Rows {
    std::vector<float> x, dy, scale, d_logits;
  };
  std::vector<Rows> rows(static_cast<std::size_t>(s_.idle.constant));
  for (std::int64_t c = 0; c < routed.tokens * k; ++c) {
    const auto at = static_cast<std::size_t>(c);
    const int expert = routed.expert[at];
    if (expert < s_.experts || !routed.kept[at] || kind(expert) == Kind::zero) continue;
    const std::int64_t token = c / k;
    const float *x = x_.data() + token * h, *g = dy.data() + token * h;
    float* to = dx.data() + token * h;
    const float weight = routed.weight_after[at], along_x = dot(x, g, h);
    if (kind(expert) == Kind::identity) {
      d_weight[at] = along_x;
      add_scaled(to, weight, g, h);
      continue;
    }
    const std::size_t i = constant(expert);
    const float *v = w_.constant.data() + i * static_cast<std::size_t>(h), *matrix = w_.constant_gate.data() + i * static_cast<std::size_t>(2 * h);
    const auto [of_token, of_vector] = shares(x, i);
    const float along_v = dot(v, g, h), d_difference = weight * of_token * of_vector * (along_x - along_v);
    d_weight[at] = of_token * along_x + of_vector * along_v;
    add_scaled(to, weight * of_token, g, h);
    for (std::int64_t j = 0; j < h; ++j) to[j] += d_difference * (matrix[2 * j] - matrix[2 * j + 1]);
    Rows& mine = rows[i];
    mine.x.insert(mine.x.end(), x, x + h), mine.dy.insert(mine.dy.end(), g, g + h);
    mine.scale.push_back(weight * of_vector);
    mine.d_logits.insert(mine.d_logits.end(), {d_difference, -d_difference});
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto count = static_cast<std::int64_t>(rows[i].scale.size());
    sum_rows(rows[i].scale.data(), rows[i].dy.data(), h, count, gradients.constant.data() + i * static_cast<std::size_t>(h));
    sum_outer_products(rows[i].x.data(), h, rows[i].d_logits.data(), 2, count, gradients.constant_gate.data() + i * static_cast<std::size_t>(2 * h));
  }
}

}  // namespace epsim
