#include "policies/routing.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/parallel.h"
#include "policies/gate_batch.h"

namespace epsim {
namespace {

constexpr std::int64_t kScoresAtOnce = 1 << 13;  // 32 KiB: what a source writes is still in the first-level cache when the router reads it
constexpr std::int64_t kTokensOfItem = 1024;     // a thread's item: large enough that its buffer costs nothing

/// Chooses for one block of the router's scope.
void choose_block(const Router& router, const GateBatch& batch, std::span<std::int32_t> experts, std::span<float> weights) {
  if (router.choose) return router.choose(batch, experts, weights);
  // Blocks of tokens by experts; 16 tokens at a time keep the copy in the first-level cache.
  const std::int64_t step = std::clamp<std::int64_t>(kScoresAtOnce / batch.experts / kBlockTokens * kBlockTokens, kBlockTokens, kTokensOfItem);
  std::vector<float> blocks(score_count(step, batch.experts));
  std::vector<std::uint16_t> ids(static_cast<std::size_t>(step * router.top_k));
  for (std::int64_t t = 0; t < batch.tokens; t += step) {
    const std::int64_t count = std::min(step, batch.tokens - t);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::span<const float> row = batch.row(t + i);
      for (std::int64_t e = 0; e < batch.experts; ++e) blocks[score_index(i, e, batch.experts)] = row[static_cast<std::size_t>(e)];
    }
    const auto n = static_cast<std::size_t>(count * router.top_k), at = static_cast<std::size_t>(t * router.top_k);
    router.select(ScoreForm::logits, count, blocks, std::span(ids).first(n), weights.subspan(at, n));
    std::ranges::copy(std::span(ids).first(n), experts.begin() + static_cast<std::ptrdiff_t>(at));
  }
}

/// Routes [first, last), one block of the router's scope or a part of one that settles token by token, the general way.
void route_generally(const Source& source, const Router& router, std::int64_t number, int layer, std::int64_t first, std::int64_t last, std::uint64_t seed, Routing& routing) {
  const std::int64_t count = last - first, k = routing.top_k;
  const int columns = routing.experts + router.idle.count();
  std::vector<float> logits(static_cast<std::size_t>(count * columns));
  {
    std::vector<float> blocks(score_count(count, columns));
    source.scores(layer, number + first, count, blocks);
    logits_of_scores(source.form, count, columns, blocks, logits);
  }
  GateBatch batch;
  batch.tokens = count, batch.experts = columns, batch.logits = logits, batch.layer = layer, batch.seed = seed, batch.first_token = number + first, batch.training = true;
  std::vector<std::int32_t> ids(static_cast<std::size_t>(count * k));
  const std::span<float> weights(routing.weight.data() + first * k, ids.size());
  choose_block(router, batch, ids, weights);
  if (!routing.priority.empty()) router.prioritise(batch, ids, std::span(routing.priority).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)));
  if (router.prune) {
    std::vector<std::uint8_t> kept(ids.size(), 1);
    router.prune(batch, ids, weights, kept);
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (!kept[i]) ids[i] = -1;
  }
  for (std::size_t i = 0; i < ids.size(); ++i) {
    routing.expert[static_cast<std::size_t>(first * k) + i] = ids[i] >= 0 ? static_cast<std::uint16_t>(ids[i]) : kNoExpert;
    if (ids[i] < 0) weights[i] = 0;
  }
}

}  // namespace

void logits_of_scores(ScoreForm form, std::int64_t count, int experts, std::span<const float> scores, std::span<float> logits) {
  for (std::int64_t t = 0; t < count; ++t)
    for (std::int64_t e = 0; e < experts; ++e) {
      const float score = scores[score_index(t, e, experts)];
      logits[static_cast<std::size_t>(t * experts + e)] = form == ScoreForm::odds ? -std::log(-score) : score;
    }
}

void choose(const Router& router, const GateBatch& batch, std::span<std::int32_t> experts, std::span<float> weights) {
  ensure(router.top_k > 0 && experts.size() == static_cast<std::size_t>(batch.tokens * router.top_k) && weights.size() == experts.size(), "a batch has room for its choices");
  if (router.scope != Router::Scope::rank || batch.ranks() == 1) return choose_block(router, batch, experts, weights);
  parallel_for(batch.ranks(), [&](std::int64_t r) {
    const std::int64_t first = batch.first_of_rank[static_cast<std::size_t>(r)], last = batch.first_of_rank[static_cast<std::size_t>(r) + 1];
    const auto at = static_cast<std::size_t>(first * router.top_k), n = static_cast<std::size_t>((last - first) * router.top_k);
    if (n > 0) choose_block(router, batch.part(first, last), experts.subspan(at, n), weights.subspan(at, n));
  });
}

float Routing::priority_of(std::int64_t token) const {
  if (!priority.empty()) return priority[static_cast<std::size_t>(token)];
  return *std::max_element(weight.begin() + token * top_k, weight.begin() + (token + 1) * top_k);
}

Routing make_routing(const Source& source, int experts, int top_k, const Router& router, bool priorities) {
  Routing routing;
  routing.experts = experts;
  routing.top_k = router.top_k > 0 ? router.top_k : top_k;
  routing.may_choose_fewer = router.may_choose_fewer;
  routing.first_token = source.first_token;
  const auto choices = static_cast<std::size_t>(source.tokens()) * static_cast<std::size_t>(routing.top_k);
  routing.expert.assign(choices, 0);
  routing.weight.assign(choices, 0.0F);
  if (priorities && router.prioritise && source.yields == Source::Yields::scores) routing.priority.assign(static_cast<std::size_t>(source.tokens()), 0.0F);
  return routing;
}

void route(const Source& source, const Router& router, int batch, int layer, int begin, int end, Routing& routing, std::uint64_t seed) {
  const std::int64_t first = routing.first_token[static_cast<std::size_t>(begin)], last = routing.first_token[static_cast<std::size_t>(end)];
  const std::int64_t k = routing.top_k, experts = routing.experts, number = batch * source.tokens();
  routing.seed = seed, routing.number = number;
  const bool scores = source.yields == Source::Yields::scores;
  if (scores && router.scope == Router::Scope::batch) return route_generally(source, router, number, layer, 0, routing.tokens(), seed, routing);
  if (scores && router.scope == Router::Scope::rank) {
    parallel_for(end - begin, [&](std::int64_t i) {
      const auto rank = static_cast<std::size_t>(begin + i);
      if (routing.first_token[rank] < routing.first_token[rank + 1])
        route_generally(source, router, number, layer, routing.first_token[rank], routing.first_token[rank + 1], seed, routing);
    });
    return;
  }
  const bool generally = scores && (!router.select || !routing.priority.empty());
  const std::int64_t step = scores ? std::clamp<std::int64_t>(kScoresAtOnce / experts / kBlockTokens * kBlockTokens, kBlockTokens, kTokensOfItem) : kTokensOfItem;
  // Tokens are independent, so items need not follow ranks: the result is the same for any split and any number of threads.
  parallel_for((last - first + kTokensOfItem - 1) / kTokensOfItem, [&](std::int64_t item) {
    std::vector<float> room(scores && !generally ? score_count(step, experts) : 0);
    const std::int64_t item_end = std::min(first + (item + 1) * kTokensOfItem, last);
    for (std::int64_t t = first + item * kTokensOfItem; t < item_end; t += step) {
      const std::int64_t count = std::min(step, item_end - t);
      if (generally) {
        route_generally(source, router, number, layer, t, t + count, seed, routing);
        continue;
      }
      const std::span<std::uint16_t> ids(routing.expert.data() + t * k, static_cast<std::size_t>(count * k));
      const std::span<float> weights(routing.weight.data() + t * k, static_cast<std::size_t>(count * k));
      if (scores) {
        const std::span<float> blocks(room.data(), score_count(count, experts));
        source.scores(layer, number + t, count, blocks);
        router.select(source.form, count, blocks, ids, weights);
      } else {
        source.choices(layer, number + t, count, ids, weights);
        if (!source.has_weights) std::ranges::fill(weights, 1.0F / static_cast<float>(k));
      }
    }
  });
}

Matrix<std::int64_t> count_choices(const Routing& routing) {
  Matrix<std::int64_t> counts(routing.ranks(), routing.experts);
  parallel_for(routing.ranks(), [&](std::int64_t rank) {
    const std::span<std::int64_t> row = counts.row(rank);
    const auto at = static_cast<std::size_t>(rank);
    const std::int64_t last = routing.first_token[at + 1] * routing.top_k;
    for (std::int64_t i = routing.first_token[at] * routing.top_k; i < last; ++i) {
      const std::uint16_t e = routing.expert[static_cast<std::size_t>(i)];
      if (!routing.may_choose_fewer || e < routing.experts) ++row[e];
    }
  });
  return counts;
}

}  // namespace epsim
