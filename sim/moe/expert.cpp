#include "sim/moe/expert.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/rng.h"

namespace epsim {
namespace {

std::vector<float> seeded_matrix(std::uint64_t seed, int layer, int expert, int matrix, std::int64_t rows, std::int64_t columns) {
  Rng rng(seed, Stream::weights, static_cast<std::uint64_t>(expert + 1) * 3 + static_cast<std::uint64_t>(matrix), static_cast<std::uint32_t>(layer));
  const double bound = std::sqrt(3.0 / static_cast<double>(rows));
  std::vector<float> m(static_cast<std::size_t>(rows * columns));
  for (float& v : m) v = static_cast<float>((2 * rng.uniform() - 1) * bound);
  return m;
}

}  // namespace

ExpertWeights make_expert_weights(std::uint64_t seed, int layer, int expert, std::int64_t hidden, std::int64_t ffn) {
  ExpertWeights w;
  w.w1 = seeded_matrix(seed, layer, expert, 0, hidden, ffn);
  w.w3 = seeded_matrix(seed, layer, expert, 1, hidden, ffn);
  w.w2 = seeded_matrix(seed, layer, expert, 2, ffn, hidden);
  return w;
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
