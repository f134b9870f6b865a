
#include <fmt/format.h>

#include "policies/router/shared/topk_gate.h"

namespace epsim::parts_router {

/// Top-p routing (Huang et al. 2024, "Harder tasks need more experts"): a token takes experts from the most probable one on until their probabilities sum to more than p; the one that passes p is taken.
/// Weights are the probabilities, not renormalised.
Router top_p(Params& p, const Shape* shape) {
  Router router;
  router.summary = "a token takes its most probable experts until their probabilities pass p (dynamic k)";
  const double least = p.number("p", "the sum of probabilities to pass", 0.4, 0, 1);
  const std::int64_t most = p.integer("most", "experts of a token at most; all unless given", shape ? shape->experts : 1, 1, 65535);
  if (!p.usable()) return router;
  if (shape && most > shape->experts) p.error("most", fmt::format("there are {} experts", shape->experts));
  if (!p.usable() || !shape) return router;
  router.top_k = static_cast<int>(most), router.may_choose_fewer = true;
  weigh_by(router, {.score = Weighing::Score::softmax, .renormalise = false});
  choose_by_token(router, [least](const GateBatch&, std::int64_t, std::span<const float> row, std::span<std::int32_t> ids) {
    std::vector<double> scores(row.size());
    scores_of(Weighing::Score::softmax, row, scores);
    best_of(scores, ids);
    double sum = 0;
    for (std::int32_t& id : ids) {
      const bool full = least < 1 && sum > least;  // the sum of all may be a rounding above 1
      if (id >= 0) sum += scores[static_cast<std::size_t>(id)];
      if (full) id = -1;
    }
  });
  return router;
}

}  // namespace epsim::parts_router
