#include "workloads/source/shared/synthetic.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/rng.h"
#include "workloads/noise.h"

namespace epsim {

namespace {

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

std::vector<std::uint32_t> expert_order(std::uint64_t seed, int layer, int experts) {
  std::vector<std::uint32_t> order(static_cast<std::size_t>(experts));
  Rng(seed, Stream::popularity, 0, static_cast<std::uint32_t>(layer)).permutation(order);
  return order;
}

}  // namespace epsim
