#include "sim/rebalance.h"

#include <cmath>

#include <fmt/format.h>

namespace epsim {

Rebalance read_rebalance(Params& p, bool fits, bool events) {
  using Statistics = Rebalance::Statistics;
  Rebalance r;
  const std::vector<std::string> names = {"exact", "window", "ema", "lagged", "predicted"};
  const std::string statistics = p.choice("statistics", "what a placement is made from: exact (the batch itself), window (the last batches), ema (all, forgetting), lagged (one batch, some ago), predicted (what the batch chose in the layer before, by what followed that in earlier batches)", names, "exact");
  r.statistics = statistics == "window" ? Statistics::window : statistics == "ema" ? Statistics::ema : statistics == "lagged" ? Statistics::lagged : statistics == "predicted" ? Statistics::predicted : Statistics::exact;
  r.window = static_cast<int>(p.integer("window", "batches of `window`", r.window, 1, 1'000'000));
  r.decay = p.number("decay", "what a batch's counts are multiplied by when the next comes, for `ema`", r.decay, 0, 1);
  r.lag = static_cast<int>(p.integer("lag", "batches that `lagged` is behind", r.lag, 1, 1'000'000));
  r.every = static_cast<int>(p.integer("every", "batches from one decision to the next", r.every, 1, 1'000'000));
  r.threshold = p.number("threshold", "place a layer anew where max/mean of its rank loads is above this", 0, 0, 1e9);
  r.layers_per_batch = static_cast<int>(p.integer("layers_per_batch", "layers that one decision may change, in turn", 0, 1, 1'000'000, "all"));
  const std::string moving = p.choice("moving", "what moving weights costs: free (nothing), blocking (the layer waits), overlapped (they travel beside the layer's tokens)", {"free", "blocking", "overlapped"}, "free");
  r.moving = moving == "blocking" ? Rebalance::Moving::blocking : moving == "overlapped" ? Rebalance::Moving::overlapped : Rebalance::Moving::free;
  const auto only_for = [&](const char* key, const char* statistic) {
    if (p.has(key) && statistics != statistic) p.error(key, fmt::format("`{}` is for statistics: {}; {} has no use for it", key, statistic, statistics));
  };
  only_for("window", "window"), only_for("decay", "ema"), only_for("lag", "lagged");
  if (fits && !p.has("statistics")) r.statistics = Statistics::fit;
  if (r.in_turn() && r.moving == Rebalance::Moving::overlapped)
    p.error("moving", fmt::format("{} statistics place a layer of a batch right before it runs: weights that travel beside it come too late", statistics));
  if (r.in_turn())
    for (const char* key : {"threshold", "layers_per_batch"})
      if (p.has(key))
        p.error(key,
                fmt::format("`{}` has no effect with statistics: {}, which places each layer when its turn comes; give `statistics`: window, ema or lagged",
                            key, statistics));
  if (r.statistics == Statistics::fit)
    for (const char* key : {"every", "threshold", "layers_per_batch", "moving"})
      if (p.has(key) && !(events && std::string_view(key) == "moving")) p.error(key, "placements are made from `fit`, once; give `statistics` to make them anew while batches pass");
  return r;
}

BatchRange read_batches(Params& params, const std::string& key, const std::string& text, int batches) {
  if (text.empty()) return {};
  const auto wrong = [&](const std::string& why) {
    params.error(key, fmt::format("`{}` {}; expected first:last, each a batch from 0 to {} or a percentage, such as 0:50%", text, why, batches));
    return BatchRange{};
  };
  const std::size_t colon = text.find(':');
  if (colon == std::string::npos) return wrong("has no colon");
  const auto end_of = [&](std::string part, int otherwise) {
    if (part.empty()) return otherwise;
    const bool percent = part.back() == '%';
    if (percent) part.pop_back();
    const std::optional<double> number = parse_number(part);
    if (!number || !(*number >= 0) || *number > (percent ? 100 : batches)) return -1;
    const double at = percent ? std::round(*number / 100 * batches) : *number;
    return at == std::floor(at) ? static_cast<int>(at) : -1;
  };
  const BatchRange range{end_of(text.substr(0, colon), 0), end_of(text.substr(colon + 1), batches)};
  if (range.first < 0 || range.last < 0) return wrong("is no range of batches");
  if (range.first >= range.last) return wrong(fmt::format("holds no batch of {}", batches));
  return range;
}

}  // namespace epsim
