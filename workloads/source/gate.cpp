#include <algorithm>
#include <cmath>
#include <list>
#include <memory>
#include <mutex>

#include "base/rng.h"
#include "base/vectorise.h"
#include "workloads/source.h"

namespace epsim::parts_source {
namespace {

using GateMatrix = std::vector<float>;  // [hidden][experts]

/// Entries are normal with variance 1/hidden, so logits have variance 1. The first row meets the component that is 1 in every token: it holds the
/// log-popularity.
GateMatrix draw_gate(std::uint64_t seed, int layer, std::int64_t hidden, int experts, double skew) {
  GateMatrix gate(static_cast<std::size_t>(hidden) * static_cast<std::size_t>(experts));
  const double scale = 1 / std::sqrt(static_cast<double>(hidden));
  for (std::int64_t i = 0; i < hidden; ++i) {
    Rng rng(seed, Stream::gate, static_cast<std::uint64_t>(i), static_cast<std::uint32_t>(layer));
    for (int e = 0; e < experts; ++e) gate[static_cast<std::size_t>(i * experts + e)] = static_cast<float>((i == 0 ? skew : scale) * rng.normal());
  }
  return gate;
}

/// The gates used last: layers are routed one after another, and a large model's gates together would not fit.
class GateCache {
 public:
  GateCache(std::uint64_t seed, std::int64_t hidden, int experts, double skew) : seed_(seed), hidden_(hidden), experts_(experts), skew_(skew) {}

  std::shared_ptr<const GateMatrix> of(int layer) {
    const std::lock_guard lock(mutex_);
    for (const auto& [known, gate] : recent_)
      if (known == layer) return gate;
    recent_.emplace_front(layer, std::make_shared<const GateMatrix>(draw_gate(seed_, layer, hidden_, experts_, skew_)));
    if (recent_.size() > 4) recent_.pop_back();
    return recent_.front().second;
  }

 private:
  std::uint64_t seed_;
  std::int64_t hidden_;
  int experts_;
  double skew_;
  std::mutex mutex_;
  std::list<std::pair<int, std::shared_ptr<const GateMatrix>>> recent_;
};

EPSIM_VECTORISE void add_scaled(double* __restrict sum, double x, const float* __restrict row, int experts) {
  for (int e = 0; e < experts; ++e) sum[e] += x * static_cast<double>(row[e]);
}

}  // namespace

Source gate(Params& p, const SourceContext* context) {
  Source source;
  source.summary = "a real gate: seeded token vectors times a seeded gate matrix, summed in double precision";
  source.first_token = read_token_blocks(p, context);
  const double skew = p.number("skew", "standard deviation of the experts' log-popularity, held by the gate's first row; 0: none", 0.0, 0, 20);
  if (!p.usable() || !context) return source;
  const auto cache = std::make_shared<GateCache>(context->seed, context->hidden, context->experts, skew);
  source.scores = [cache, seed = context->seed, hidden = context->hidden, experts = context->experts](int layer, std::int64_t first, std::int64_t count,
                                                                                                      std::span<float> logits) {
    const std::shared_ptr<const GateMatrix> gate_matrix = cache->of(layer);
    std::vector<float> x(static_cast<std::size_t>(hidden));
    std::vector<double> sum(static_cast<std::size_t>(experts));
    for (std::int64_t t = 0; t < count; ++t) {
      token_vector(seed, first + t, x);
      std::fill(sum.begin(), sum.end(), 0.0);
      for (std::int64_t i = 0; i < hidden; ++i) add_scaled(sum.data(), x[static_cast<std::size_t>(i)], gate_matrix->data() + i * experts, experts);
      for (int e = 0; e < experts; ++e) logits[score_index(t, e, experts)] = static_cast<float>(sum[static_cast<std::size_t>(e)]);
    }
  };
  source.gate = [cache](int layer, std::span<float> out) {
    const std::shared_ptr<const GateMatrix> gate_matrix = cache->of(layer);
    std::copy(gate_matrix->begin(), gate_matrix->end(), out.begin());
  };
  return source;
}

}  // namespace epsim::parts_source
