#include "sim/moe/expert.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/rng.h"

namespace epsim {
namespace {

/// The numbers of an array, uniform between -bound and bound.
std::vector<float> seeded(std::uint64_t seed, int layer, std::uint64_t array, std::int64_t count, double bound) {
  Rng rng(seed, Stream::weights, array, static_cast<std::uint32_t>(layer));
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& v : values) v = static_cast<float>((2 * rng.uniform() - 1) * bound);
  return values;
}

std::vector<float> seeded_matrix(std::uint64_t seed, int layer, int expert, int matrix, std::int64_t rows, std::int64_t columns) {
  return seeded(seed, layer, static_cast<std::uint64_t>(expert + 1) * 3 + static_cast<std::uint64_t>(matrix), rows * columns, std::sqrt(3.0 / static_cast<double>(rows)));
}

}  // namespace

ExpertWeights make_expert_weights(std::uint64_t seed, int layer, int expert, std::int64_t hidden, std::int64_t ffn) {
  ExpertWeights w;
  w.w1 = seeded_matrix(seed, layer, expert, 0, hidden, ffn);
  w.w3 = seeded_matrix(seed, layer, expert, 1, hidden, ffn);
  w.w2 = seeded_matrix(seed, layer, expert, 2, ffn, hidden);
  return w;
}

ConstantWeights make_constant_weights(std::uint64_t seed, int layer, int count, std::int64_t hidden) {
  constexpr std::uint64_t kBehindOthers = std::uint64_t{1} << 41;  // weights of experts and of models have the numbers below
  ConstantWeights all;
  for (int i = 0; i < count; ++i) {
    const std::vector<float> vector = seeded(seed, layer, kBehindOthers + 2 * static_cast<std::uint64_t>(i), hidden, std::sqrt(3.0));
    const std::vector<float> matrix = seeded(seed, layer, kBehindOthers + 2 * static_cast<std::uint64_t>(i) + 1, 2 * hidden, std::sqrt(3.0 / static_cast<double>(hidden)));
    all.vectors.insert(all.vectors.end(), vector.begin(), vector.end()), all.matrices.insert(all.matrices.end(), matrix.begin(), matrix.end());
  }
  return all;
}

void ExpertBank::add(int expert, std::int64_t ffn, const ExpertWeights& w, Passes passes) {
  ensure(w.b1.empty() && w.b3.empty() && w.b2.empty(), "a bank's experts have no biases");
  const FfnShape shape{hidden_, ffn, Activation::swiglu, Precision::fp32};
  const FfnView view = view_of(w, shape, 0);
  experts_[expert] = {ffn, Ffn(shape, view), passes == Passes::both ? std::optional(FfnBackward(shape, view)) : std::nullopt};
}

void ExpertBank::remove(int expert) { experts_.erase(expert); }
bool ExpertBank::holds(int expert) const { return experts_.contains(expert); }

const ExpertBank::Held& ExpertBank::held(int expert) const {
  const auto found = experts_.find(expert);
  ensure(found != experts_.end(), "a process computes only with experts it holds");
  return found->second;
}

void ExpertBank::forward(int expert, std::span<const float> rows, std::span<float> out) const {
  const Held& mine = held(expert);
  const std::int64_t count = static_cast<std::int64_t>(rows.size()) / hidden_;
  std::vector<float> g(static_cast<std::size_t>(std::min(count, kBlockRows) * mine.ffn)), u(g.size());
  for (std::int64_t first = 0; first < count; first += kBlockRows)
    mine.expert.forward(rows.data() + first * hidden_, std::min(kBlockRows, count - first), g.data(), u.data(), out.data() + first * hidden_);
}

void ExpertBank::forward(int expert, std::span<const float> rows, std::span<float> out, std::span<float> g, std::span<float> u) const {
  held(expert).expert.forward(rows.data(), static_cast<std::int64_t>(rows.size()) / hidden_, g.data(), u.data(), out.data());
}

void ExpertBank::backward(int expert, const FfnRows& rows) const {
  const Held& mine = held(expert);
  ensure(mine.backward.has_value(), "an expert that computes backwards was packed for both passes");
  mine.backward->backward(rows);
}

}  // namespace epsim
