#include "policies/routing.h"

#include <algorithm>

#include "base/parallel.h"

namespace epsim {
namespace {

constexpr std::int64_t kScoresAtOnce = 1 << 13;  // 32 KiB: what a source writes is still in the first-level cache when the router reads it
constexpr std::int64_t kTokensOfItem = 1024;     // a thread's item: large enough that its buffer costs nothing

}  // namespace

Routing make_routing(const Source& source, int experts, int top_k) {
  Routing routing;
  routing.experts = experts;
  routing.top_k = top_k;
  routing.first_token = source.first_token;
  const auto choices = static_cast<std::size_t>(source.tokens()) * static_cast<std::size_t>(top_k);
  routing.expert.assign(choices, 0);
  routing.weight.assign(choices, 0.0F);
  return routing;
}

void route(const Source& source, const Router& router, int batch, int layer, int begin, int end, Routing& routing) {
  const std::int64_t first = routing.first_token[static_cast<std::size_t>(begin)], last = routing.first_token[static_cast<std::size_t>(end)];
  const std::int64_t k = routing.top_k, experts = routing.experts, number = batch * source.tokens();
  const bool scores = source.yields == Source::Yields::scores;
  const std::int64_t step = scores ? std::clamp<std::int64_t>(kScoresAtOnce / experts / kBlockTokens * kBlockTokens, kBlockTokens, kTokensOfItem) : kTokensOfItem;
  // Tokens are independent, so items need not follow ranks: the result is the same for any split and any number of threads.
  parallel_for((last - first + kTokensOfItem - 1) / kTokensOfItem, [&](std::int64_t item) {
    std::vector<float> room(scores ? score_count(step, experts) : 0);
    const std::int64_t item_end = std::min(first + (item + 1) * kTokensOfItem, last);
    for (std::int64_t t = first + item * kTokensOfItem; t < item_end; t += step) {
      const std::int64_t count = std::min(step, item_end - t);
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
    for (std::int64_t i = routing.first_token[at] * routing.top_k; i < last; ++i) ++row[routing.expert[static_cast<std::size_t>(i)]];
  });
  return counts;
}

}  // namespace epsim
