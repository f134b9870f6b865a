#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "policies/router/shared/topk_gate.h"

namespace epsim::parts_router {

/// Expert choice (Zhou et al. 2022): each expert takes the `factor T / E` of a rank's T tokens that have the largest probability for it, rounded up and then to a multiple (V-MoE's `compute_capacity`, in double precision as there: 4); ties go
/// to the lowest token id. A token gets from 0 to all experts; weights are the probabilities (softmax over experts). Experts are even by construction, and tokens are chosen with knowledge of later ones.
Router expert_choice(Params& p, const Shape* shape) {
  Router router;
  router.summary = "each expert takes the tokens that are most probable for it, the same number for each expert (expert choice)";
  const Rational factor = p.rational("factor", "tokens that an expert takes, over the mean of one choice a token; the model's top_k unless given", Rational{shape ? std::max(shape->top_k, 1) : 1, 1});
  const std::int64_t multiple = p.integer("multiple", "the number is rounded up to a multiple of this", 4, 1, 65536);
  const std::int64_t group = p.integer("group", "tokens of a rank that experts choose among; 0: all", 0, 0);
  if (!p.usable() || !shape) return router;
  router.top_k = shape->experts, router.scope = Router::Scope::rank, router.may_choose_fewer = true;
  weigh_by(router, {.score = Weighing::Score::softmax, .renormalise = false});
  router.choose = [factor, multiple, group, weigh_all = router.weigh](const GateBatch& batch, std::span<std::int32_t> experts, std::span<float> weights) {
    const auto columns = static_cast<std::size_t>(batch.experts);
    std::ranges::fill(experts, -1);
    std::vector<double> scores(columns);
    std::vector<double> probability(batch.logits.size());
    for (std::int64_t t = 0; t < batch.tokens; ++t) {
      scores_of(Weighing::Score::softmax, batch.row(t), scores);
      std::ranges::copy(scores, probability.begin() + t * batch.experts);
    }
    const std::int64_t step = group > 0 ? group : std::max<std::int64_t>(batch.tokens, 1);
    std::vector<std::vector<std::pair<double, std::int32_t>>> taken(static_cast<std::size_t>(batch.tokens));
    std::vector<std::int64_t> order;
    for (std::int64_t first = 0; first < batch.tokens; first += step) {
      const std::int64_t tokens = std::min(step, batch.tokens - first);
      auto capacity = static_cast<std::int64_t>(std::ceil(static_cast<double>(tokens) * factor.value() / static_cast<double>(batch.experts)));
      capacity = std::min((capacity + multiple - 1) / multiple * multiple, tokens);
      for (std::int32_t e = 0; e < batch.experts; ++e) {
        order.resize(static_cast<std::size_t>(tokens));
        for (std::int64_t i = 0; i < tokens; ++i) order[static_cast<std::size_t>(i)] = first + i;
        std::partial_sort(order.begin(), order.begin() + capacity, order.end(), [&](std::int64_t a, std::int64_t b) {
          const double x = probability[static_cast<std::size_t>(a * batch.experts + e)], y = probability[static_cast<std::size_t>(b * batch.experts + e)];
          return x != y ? x > y : a < b;
        });
        for (std::int64_t i = 0; i < capacity; ++i) {
          const auto t = static_cast<std::size_t>(order[static_cast<std::size_t>(i)]);
          taken[t].emplace_back(-probability[t * columns + static_cast<std::size_t>(e)], e);
        }
      }
    }
    for (std::size_t t = 0; t < taken.size(); ++t) {
      std::ranges::sort(taken[t]);
      for (std::size_t i = 0; i < taken[t].size(); ++i) experts[t * columns + i] = taken[t][i].second;
    }
    weigh_all(batch, experts, weights);
  };
  return router;
}

}  // namespace epsim::parts_router
