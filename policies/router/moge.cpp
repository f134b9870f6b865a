#include <algorithm>

#include <fmt/format.h>

#include "policies/router/shared/topk_gate.h"

namespace epsim::parts_router {

/// Mixture of grouped experts (Pangu Pro MoE, 2025): experts stand in equal groups, mostly one a rank, and a token takes the top_k / groups best of each, by softmax over all experts: ranks are even by construction.
Router moge(Params& p, const Shape* shape) {
  Router router;
  router.summary = "the same number of experts from each group of experts (MoGE, Pangu Pro MoE)";
  const std::int64_t groups = p.integer("groups", "groups of neighbouring experts", {}, 1, 65535);
  const bool renormalise = p.flag("renormalise", "divide the weights by their sum", false);
  if (!p.usable()) return router;
  check_top_k(p, shape);
  if (shape && shape->experts % groups != 0) p.error("groups", fmt::format("{} groups do not divide {} experts", groups, shape->experts));
  if (shape && shape->top_k % groups != 0) p.error("groups", fmt::format("{} groups do not divide top_k {}", groups, shape->top_k));
  if (!p.usable() || !shape) return router;
  router.top_k = shape->top_k;
  weigh_by(router, {.score = Weighing::Score::softmax, .renormalise = renormalise});
  choose_by_token(router, [groups = static_cast<std::size_t>(groups)](const GateBatch&, std::int64_t, std::span<const float> row, std::span<std::int32_t> ids) {
    const std::size_t size = row.size() / groups, each = ids.size() / groups;
    for (std::size_t g = 0; g < groups; ++g) {
      const std::span<std::int32_t> mine = ids.subspan(g * each, each);
      best_of(std::vector<double>(row.begin() + static_cast<std::ptrdiff_t>(g * size), row.begin() + static_cast<std::ptrdiff_t>((g + 1) * size)), mine);
      for (std::int32_t& id : mine)
        if (id >= 0) id += static_cast<std::int32_t>(g * size);
    }
    std::ranges::sort(ids, [&](std::int32_t a, std::int32_t b) {
      if (a < 0 || b < 0) return a >= 0 && b < 0;
      const float x = row[static_cast<std::size_t>(a)], y = row[static_cast<std::size_t>(b)];
      return x != y ? x > y : a < b;
    });
  });
  return router;
}

}  // namespace epsim::parts_router
