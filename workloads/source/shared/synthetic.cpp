#include "workloads/source/shared/synthetic.h"

#include <algorithm>
#include <cmath>
#include <list>
#include <map>
#include <memory>
#include <mutex>

#include "base/rng.h"
#include "workloads/noise.h"

namespace epsim {

namespace {

constexpr std::int64_t kNoExpert = 1 << 24;  // draws that belong to a window of batches as a whole

/// -1/popularity of each expert. Beyond e^65 and e^80, scores would leave the range of a float.
std::vector<float> scales(const Popularity& popularity, int layer, int experts) {
  std::vector<float> out(static_cast<std::size_t>(experts));
  popularity(layer, out);
  for (float& x : out) x = static_cast<float>(-std::exp(-std::clamp(static_cast<double>(x), -80.0, 65.0)));
  return out;
}

}  // namespace

void make_synthetic(Source& source, const SourceContext& context, const Popularity& popularity) {
  source.yields = Source::Yields::scores, source.form = ScoreForm::odds;
  std::map<int, std::vector<float>> of_layer;
  for (const int layer : context.layers) of_layer[layer] = scales(popularity, layer, context.experts);
  source.scores = [of_layer = std::move(of_layer), popularity, seed = context.seed, experts = context.experts](int layer, std::int64_t first,
                                                                                                               std::int64_t count, std::span<float> scores) {
    if (const auto known = of_layer.find(layer); known != of_layer.end()) return draw_odds(seed, layer, first, count, known->second, scores);
    draw_odds(seed, layer, first, count, scales(popularity, layer, experts), scores);
  };
}

namespace {

/// The scales that were used last: batch after batch, layers are routed one after another, each by many ranks.
class ScaleCache {
 public:
  ScaleCache(BatchPopularity popularity, int experts) : popularity_(std::move(popularity)), experts_(experts) {}

  std::shared_ptr<const std::vector<float>> of(int layer, int batch) {
    const std::lock_guard lock(mutex_);
    const auto known = std::ranges::find(recent_, std::pair(layer, batch), &Entry::key);
    if (known != recent_.end()) return known->scales;
    const Popularity now = [&](int l, std::span<float> log_popularity) { popularity_(l, batch, log_popularity); };
    constexpr std::size_t kKept = 8;
    if (recent_.size() == kKept) recent_.pop_back();
    recent_.push_front({{layer, batch}, std::make_shared<const std::vector<float>>(scales(now, layer, experts_))});
    return recent_.front().scales;
  }

 private:
  struct Entry {
    std::pair<int, int> key;
    std::shared_ptr<const std::vector<float>> scales;
  };
  BatchPopularity popularity_;
  int experts_;
  std::mutex mutex_;
  std::list<Entry> recent_;
};

}  // namespace

void make_synthetic(Source& source, const SourceContext& context, const BatchPopularity& popularity) {
  source.yields = Source::Yields::scores, source.form = ScoreForm::odds;
  const auto cache = std::make_shared<ScaleCache>(popularity, context.experts);
  source.scores = [cache, batch_tokens = source.tokens(), seed = context.seed, experts = context.experts](int layer, std::int64_t first, std::int64_t count, std::span<float> scores) {
    std::vector<float> block(score_count(kBlockTokens, experts));
    for (std::int64_t done = 0; done < count;) {
      const std::int64_t batch = (first + done) / batch_tokens;
      const std::int64_t end = std::min(count, (batch + 1) * batch_tokens - first);
      const auto now = cache->of(layer, static_cast<int>(batch));
      // A block that a batch before has begun: its other tokens are of this one.
      if (const std::int64_t begun = done % kBlockTokens; begun != 0) {
        draw_odds(seed, layer, first + done - begun, kBlockTokens, *now, block);
        const std::int64_t upto = std::min(kBlockTokens, begun + end - done);
        for (std::int64_t t = begun; t < upto; ++t)
          for (std::int64_t e = 0; e < experts; ++e) scores[score_index(done - begun + t, e, experts)] = block[score_index(t, e, experts)];
        done += upto - begun;
      }
      if (done < end) draw_odds(seed, layer, first + done, end - done, *now, scores.subspan(score_index(done, 0, experts)));
      done = end;
    }
  };
}

Rng batch_rng(std::uint64_t seed, int layer, std::int64_t batch, std::int64_t expert) {
  // Beyond what popularity that stands still draws: 24 bits hold every expert, the rest every batch.
  return Rng(seed, Stream::popularity, (static_cast<std::uint64_t>(batch) + 1) << 33 | static_cast<std::uint64_t>(expert), static_cast<std::uint32_t>(layer));
}

void mark_hot(std::uint64_t seed, int layer, std::int64_t window, int hot, float log_factor, std::span<float> log_popularity) {
  std::vector<std::uint32_t> order(log_popularity.size());
  batch_rng(seed, layer, window, kNoExpert).permutation(order);
  for (std::size_t i = 0; i < static_cast<std::size_t>(hot) && i < order.size(); ++i) log_popularity[order[i]] += log_factor;
}

Popularity read_base(Params& params, const SourceContext* context) {
  const double sigma = params.number("sigma", "standard deviation of log(popularity) in the mean of time; 0: uniform", 0.0, 0, 20);
  return [sigma, seed = context ? context->seed : 0](int layer, std::span<float> log_popularity) {
    for (std::size_t e = 0; e < log_popularity.size(); ++e)
      log_popularity[e] = sigma > 0 ? static_cast<float>(sigma * Rng(seed, Stream::popularity, 1 + e, static_cast<std::uint32_t>(layer)).normal()) : 0.0F;
  };
}

std::vector<std::uint32_t> expert_order(std::uint64_t seed, int layer, int experts) {
  std::vector<std::uint32_t> order(static_cast<std::size_t>(experts));
  Rng(seed, Stream::popularity, 0, static_cast<std::uint32_t>(layer)).permutation(order);
  return order;
}

}  // namespace epsim
