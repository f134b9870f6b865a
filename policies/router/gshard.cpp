#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/rng.h"
#include "policies/router/shared/weighing.h"

namespace epsim::parts_router {
namespace {

/// Puts the best of the rest where the second expert of a pair was taken away.
void complete(const GateBatch& batch, std::span<std::int32_t> pairs) {
  for (std::int64_t t = 0; t < batch.tokens; ++t) {
    const std::span<std::int32_t> pair = pairs.subspan(static_cast<std::size_t>(2 * t), 2);
    if (pair[1] >= 0) continue;
    const std::span<const float> row = batch.row(t);
    for (std::int32_t e = 0; e < batch.experts; ++e)
      if (e != pair[0] && (pair[1] < 0 || row[static_cast<std::size_t>(e)] > row[static_cast<std::size_t>(pair[1])])) pair[1] = e;
  }
}

double draw(const GateBatch& batch, std::int64_t token) {
  return Rng(batch.seed, Stream::router, static_cast<std::uint64_t>(batch.first_token + token), static_cast<std::uint32_t>(batch.layer)).uniform();
}

}  // namespace

/// Top-2 of GShard (Lepikhin et al. 2021): weights g1 / (g1 + g2) and g2 / (g1 + g2), and a second expert that may be left out or chosen by draw. `second`: `all` always takes it; `mesh` keeps it with
/// probability min(1, g2 / threshold), as Mesh TensorFlow does with 0.2; `fastmoe` keeps it with probability min(1, 2 g2), but only after capacity, so that it has taken a place in vain; `gumbel` chooses it by
/// logits with Gumbel noise (DeepSpeed's top2_2nd_expert_sampling). The first expert's weight stays what it was.
Router gshard(Params& p, const Shape* shape) {
  Router router;
  router.summary = "each token's two best experts; the second one always, by draw with its weight, or by logits with Gumbel noise (GShard, Mesh TensorFlow, FastMoE, DeepSpeed)";
  const std::string second = p.choice("second", "the second expert: always, or kept or chosen by draw as one of three frameworks does", {"all", "mesh", "fastmoe", "gumbel"}, "all");
  const double threshold = p.number("threshold", "of `mesh`: a second weight from which it is always kept", 0.2, 1e-9, 1);
  if (!p.usable()) return router;
  if (p.has("threshold") && second != "mesh") p.error("threshold", "only `second: mesh` has a threshold");
  if (shape && shape->top_k != 2) p.error("", fmt::format("top_k is {}, but this router chooses 2 experts", shape->top_k));
  if (shape && shape->experts < 2) p.error("", "two experts are chosen, but there is one");
  if (!p.usable() || !shape) return router;
  router.top_k = 2;
  router.may_choose_fewer = second == "mesh" || second == "fastmoe";
  weigh_by(router, {.score = Weighing::Score::softmax_chosen});
  router.weigh = [pair_weights = router.weigh](const GateBatch& batch, std::span<const std::int32_t> experts, std::span<float> weights) {
    std::vector<std::int32_t> pairs(experts.begin(), experts.end());
    complete(batch, pairs);
    pair_weights(batch, pairs, weights);
    for (std::size_t i = 0; i < experts.size(); ++i)
      if (experts[i] < 0) weights[i] = 0;
  };
  router.backward = [pair_backward = router.backward](const GateBatch& batch, std::span<const std::int32_t> experts, std::span<const float> d_weights, std::span<float> d_logits) {
    std::vector<std::int32_t> pairs(experts.begin(), experts.end());
    std::vector<float> d(d_weights.begin(), d_weights.end());
    complete(batch, pairs);
    for (std::size_t i = 0; i < experts.size(); ++i)
      if (experts[i] < 0) d[i] = 0;
    pair_backward(batch, pairs, d, d_logits);
  };
  router.choose = [second, threshold, weigh_all = router.weigh](const GateBatch& batch, std::span<std::int32_t> experts, std::span<float> weights) {
    for (std::int64_t t = 0; t < batch.tokens; ++t) {
      const auto row = batch.row(t);
      std::vector<double> scores(row.begin(), row.end());
      const std::span<std::int32_t> pair = experts.subspan(static_cast<std::size_t>(2 * t), 2);
      best_of(scores, pair);
      if (second != "gumbel" || pair[0] < 0) continue;
      Rng rng(batch.seed, Stream::router, static_cast<std::uint64_t>(batch.first_token + t), static_cast<std::uint32_t>(batch.layer));
      for (double& s : scores) s -= std::log(-std::log(rng.uniform()));
      scores[static_cast<std::size_t>(pair[0])] = -INFINITY;
      best_of(scores, pair.subspan(1));
    }
    weigh_all(batch, experts, weights);
    for (std::int64_t t = 0; second == "mesh" && t < batch.tokens; ++t) {
      const auto i = static_cast<std::size_t>(2 * t + 1);
      if (draw(batch, t) >= double{weights[i]} / threshold) experts[i] = -1, weights[i] = 0;
    }
  };
  if (second == "fastmoe")
    router.prune = [](const GateBatch& batch, std::span<const std::int32_t>, std::span<const float> weights, std::span<std::uint8_t> kept) {
      for (std::int64_t t = 0; t < batch.tokens; ++t)
        if (const auto i = static_cast<std::size_t>(2 * t + 1); 2 * double{weights[i]} < draw(batch, t)) kept[i] = 0;
    };
  return router;
}

}  // namespace epsim::parts_router
