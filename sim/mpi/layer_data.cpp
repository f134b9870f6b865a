#include "sim/mpi/layer_data.h"

#include <algorithm>

#include "base/rng.h"

namespace epsim {

Pricing execute_pricing(const Experiment& e) {
  Pricing p = e.pricing;
  p.hidden = e.execute_hidden, p.expert_ffn = e.execute_ffn;
  // A shrunken expert has a shrunken shared expert, in the model's own proportion.
  if (p.shared_ffn > 0) p.shared_ffn = std::max<std::int64_t>(1, e.model.shared_ffn * e.execute_ffn / e.model.expert_ffn);
  p.expert_matrices = 3;
  p.dispatch = p.combine = p.weights = Precision::fp32;
  p.dispatch_extra = p.combine_extra = 0;
  return p;
}

std::vector<float> token_vectors(const Experiment& e, std::int64_t first, std::int64_t last) {
  const std::int64_t h = e.execute_hidden;
  std::vector<float> x(static_cast<std::size_t>((last - first) * h));
  for (std::int64_t t = first; t < last; ++t) token_vector(e.seed, e.eval.first * e.source.tokens() + t, std::span(x).subspan(static_cast<std::size_t>((t - first) * h), static_cast<std::size_t>(h)));
  return x;
}

void load_expert(const Experiment& e, int layer, int expert, ExpertBank& bank, ExpertBank::Passes passes) {
  const std::int64_t ffn = expert == kSharedExpert ? execute_pricing(e).shared_ffn : e.execute_ffn;
  bank.add(expert, ffn, make_expert_weights(e.seed, layer, expert, e.execute_hidden, ffn), passes);
}

IdleBank idle_bank(const Experiment& e, int layer) {
  IdleBank bank;
  bank.shape.hidden = e.execute_hidden, bank.shape.experts = e.model.num_experts, bank.shape.idle = e.router.idle;
  ConstantWeights constants = make_constant_weights(e.seed, layer, e.router.idle.constant, e.execute_hidden);
  bank.weights.constant = std::move(constants.vectors), bank.weights.constant_gate = std::move(constants.matrices);
  return bank;
}

std::vector<float> gradient_vectors(const Experiment& e, int layer, std::int64_t first, std::int64_t last) {
  const std::int64_t h = e.execute_hidden;
  std::vector<float> r;
  r.reserve(static_cast<std::size_t>((last - first) * h));
  for (std::int64_t t = first; t < last; ++t) {
    // The vectors themselves are stream 0.
    Rng rng(e.seed, Stream::vectors, static_cast<std::uint64_t>(e.eval.first * e.source.tokens() + t), static_cast<std::uint32_t>(layer) + 1);
    for (std::int64_t i = 0; i < h; ++i) r.push_back(static_cast<float>(rng.normal()));
  }
  return r;
}

}  // namespace epsim
