#include "sim/compressed.h"

#include "base/parallel.h"

namespace epsim {
namespace {

constexpr std::int64_t kTokensAtOnce = 1024;

/// Adds the products of the gate's logits of a batch, some tokens at a time: those of all would not fit in memory.
void see_logits(const Uncompressed& whole, int batch, int layer, ExpertsSeen& seen) {
  const std::int64_t number = batch * whole.source.tokens();
  const int scored = whole.experts + whole.router.idle.count();
  for (std::int64_t first = 0; first < whole.source.tokens(); first += kTokensAtOnce) {
    const std::int64_t count = std::min(kTokensAtOnce, whole.source.tokens() - first);
    std::vector<float> blocks(score_count(count, scored)), all(static_cast<std::size_t>(count * scored)), logits;
    whole.source.scores(layer, number + first, count, blocks);
    logits_of_scores(whole.source.form, count, scored, blocks, all);
    for (std::int64_t t = 0; t < count; ++t) logits.insert(logits.end(), all.begin() + t * scored, all.begin() + t * scored + whole.experts);
    seen.add_products(logits);
  }
}

}  // namespace

const Compressed::Layer& Compressed::layer(int layer) const {
  const std::lock_guard lock(mutex_);
  if (const auto known = layers_.find(layer); known != layers_.end()) return known->second;
  ExpertsSeen seen(layer, whole_.experts);
  for (int batch = whole_.seen.first; batch < whole_.seen.last && compression_.sees != Compression::Sees::nothing; ++batch) {
    Routing routing = make_routing(whole_.source, whole_.experts, whole_.top_k, whole_.router);
    route(whole_.source, whole_.router, batch, layer, 0, routing.ranks(), routing, whole_.seed);
    seen.add(routing);
    if (compression_.sees != Compression::Sees::gate) continue;
    whole_.source.yields == Source::Yields::scores ? see_logits(whole_, batch, layer, seen) : seen.add_products(routing);
  }
  ExpertMap map = compression_.decide(seen);
  map.check();
  Layer made{map, whole_.source.yields == Source::Yields::scores ? map.of_the_rest() : map};
  return layers_.emplace(layer, std::move(made)).first->second;
}

Source without_pruned(const std::shared_ptr<const Compressed>& compressed) {
  const Uncompressed& whole = compressed->whole();
  Source source = whole.source;
  source.gate = nullptr;
  if (source.yields == Source::Yields::choices || compressed->columns() == whole.experts) return source;
  source.scores = [compressed, scored = whole.experts + whole.router.idle.count()](int layer, std::int64_t first, std::int64_t count, std::span<float> scores) {
    std::vector<float> all(score_count(count, scored));
    compressed->whole().source.scores(layer, first, count, all);
    const std::vector<std::uint16_t>& to = compressed->layer(layer).map.to;
    // A block holds its tokens expert by expert, so that experts are left out as whole runs of it.
    auto out = scores.begin();
    for (std::size_t at = 0, run = 0; at < all.size(); at += kBlockTokens, run = (run + 1) % static_cast<std::size_t>(scored))
      if (run >= to.size() || to[run] != kNoExpert) out = std::copy_n(all.begin() + static_cast<std::ptrdiff_t>(at), kBlockTokens, out);
  };
  return source;
}

void compress(const Compressed& compressed, int layer, int begin, int end, Routing& routing) {
  const ExpertMap& map = compressed.layer(layer).of_columns;
  const std::int64_t first = routing.first_token[static_cast<std::size_t>(begin)], last = routing.first_token[static_cast<std::size_t>(end)], k = routing.top_k;
  parallel_for((last - first + kTokensAtOnce - 1) / kTokensAtOnce, [&](std::int64_t item) {
    const std::int64_t upto = std::min(last, first + (item + 1) * kTokensAtOnce);
    for (std::int64_t t = first + item * kTokensAtOnce; t < upto; ++t) {
      const auto at = static_cast<std::size_t>(t * k), n = static_cast<std::size_t>(k);
      compress(map, std::span(routing.expert).subspan(at, n), std::span(routing.weight).subspan(at, n));
    }
  });
}

}  // namespace epsim
