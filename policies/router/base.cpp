#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "policies/router/shared/weighing.h"

namespace epsim::parts_router {
namespace {

/// Assigns tokens to experts, exactly `each` tokens an expert, near the largest sum of scores [E][T], by auction: each expert bids for its best tokens what they are better than the next one, tokens go to the
/// highest bidder and get dearer by its bid. After 100 rounds a token that was bid for stays where it is. Gives the expert of each token.
std::vector<std::int32_t> auction(const Matrix<float>& scores, std::int64_t each) {
  constexpr int kRounds = 100;
  const auto tokens = static_cast<std::size_t>(scores.columns), experts = static_cast<std::size_t>(scores.rows);
  const auto [low, high] = std::ranges::minmax(scores.cells);
  const float eps = std::max((high - low) / 50, 1e-4F);
  Matrix<float> value = scores;
  std::vector<float> cost(tokens), bid(tokens);
  std::vector<std::int32_t> owner(tokens, -1), bidder(tokens), order(tokens);
  for (int round = 0; round < 100 * kRounds; ++round) {
    std::ranges::fill(bid, 0.0F), std::ranges::fill(bidder, -1);
    for (std::size_t e = 0; e < experts; ++e) {
      const auto mine = value.row(static_cast<std::int64_t>(e));
      for (std::size_t t = 0; t < tokens; ++t) order[t] = static_cast<std::int32_t>(t);
      const auto better = [&](std::int32_t a, std::int32_t b) {
        const float x = mine[static_cast<std::size_t>(a)], y = mine[static_cast<std::size_t>(b)];
        return x != y ? x > y : a < b;
      };
      const auto next = std::min<std::size_t>(static_cast<std::size_t>(each), tokens - 1);
      std::nth_element(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(next), order.end(), better);
      const float threshold = mine[static_cast<std::size_t>(order[next])];
      for (std::size_t i = 0; i < static_cast<std::size_t>(each) && i < tokens; ++i) {
        const auto t = static_cast<std::size_t>(order[i]);
        // Who has a token asks little for it, and keeps it unless another expert bids.
        float mine_bid = tokens > static_cast<std::size_t>(each) ? mine[t] - threshold + eps : eps;
        if (round > 0 && round < kRounds && owner[t] == static_cast<std::int32_t>(e)) mine_bid = eps;
        if (mine_bid > bid[t] || (mine_bid == bid[t] && bidder[t] > static_cast<std::int32_t>(e))) bid[t] = mine_bid, bidder[t] = static_cast<std::int32_t>(e);
      }
    }
    bool all = true;
    for (std::size_t t = 0; t < tokens; ++t) {
      owner[t] = bidder[t];
      all = all && bidder[t] >= 0;
      cost[t] += bid[t];
      for (std::size_t e = 0; e < experts; ++e) value(static_cast<std::int64_t>(e), static_cast<std::int64_t>(t)) = scores(static_cast<std::int64_t>(e), static_cast<std::int64_t>(t)) - cost[t];
      if (owner[t] >= 0) value(owner[t], static_cast<std::int64_t>(t)) = round < kRounds ? scores(owner[t], static_cast<std::int64_t>(t)) : high + 1;
    }
    if (all) break;
  }
  // Every expert bids for `each` tokens, so if all tokens have a bidder each expert has won `each`; what an unfinished auction left goes where there is room.
  std::vector<std::int64_t> count(experts);
  for (std::int32_t& o : owner)
    if (o >= 0 && count[static_cast<std::size_t>(o)]++ >= each) o = -1;
  std::ranges::fill(count, 0);
  for (const std::int32_t o : owner)
    if (o >= 0) ++count[static_cast<std::size_t>(o)];
  for (std::int32_t& o : owner)
    for (std::size_t e = 0; o < 0 && e < experts; ++e)
      if (count[e] < each) o = static_cast<std::int32_t>(e), ++count[e];
  return owner;
}

}  // namespace

/// BASE layers (Lewis et al. 2021): in training a rank's T tokens are assigned so that each expert gets T / E of them (rounded up where that is no whole number), with nearly the largest sum of scores, by
/// auction; otherwise each token takes its best expert. The weight is sigmoid(logit); the layer's result is w expert(x) + (1 - w) x.
Router base(Params& p, const Shape* shape) {
  Router router;
  router.summary = "one expert a token, the same number of a rank's tokens for each expert, by auction (BASE layers)";
  if (!p.usable()) return router;
  if (shape && shape->top_k != 1) p.error("", fmt::format("top_k is {}, but this router assigns 1 expert", shape->top_k));
  if (!p.usable() || !shape) return router;
  router.top_k = 1, router.scope = Router::Scope::rank;
  weigh_by(router, {.score = Weighing::Score::sigmoid, .renormalise = false});
  router.choose = [weigh_all = router.weigh](const GateBatch& batch, std::span<std::int32_t> experts, std::span<float> weights) {
    if (batch.training && batch.tokens > 0) {
      const std::int64_t each = (batch.tokens + batch.experts - 1) / batch.experts, padded = each * batch.experts;
      // Places that are too many are taken by tokens that nobody wants.
      const float lowest = std::ranges::min(batch.logits);
      Matrix<float> scores(batch.experts, padded);
      for (std::int64_t e = 0; e < batch.experts; ++e)
        for (std::int64_t t = 0; t < padded; ++t) scores(e, t) = t < batch.tokens ? batch.row(t)[static_cast<std::size_t>(e)] : lowest;
      const std::vector<std::int32_t> owner = auction(scores, each);
      std::copy_n(owner.begin(), experts.size(), experts.begin());
    } else {
      for (std::int64_t t = 0; t < batch.tokens; ++t)
        experts[static_cast<std::size_t>(t)] = static_cast<std::int32_t>(std::ranges::max_element(batch.row(t)) - batch.row(t).begin());
    }
    weigh_all(batch, experts, weights);
  };
  return router;
}

}  // namespace epsim::parts_router
