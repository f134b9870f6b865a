#include "workloads/source/shared/synthetic.h"

#include <map>

#include "base/rng.h"
#include "workloads/noise.h"

namespace epsim {

void make_synthetic(Source& source, const SourceContext& context, const Popularity& popularity) {
  source.yields = Source::Yields::scores;
  std::map<int, std::vector<float>> of_layer;
  for (int layer : context.layers) popularity(layer, of_layer[layer] = std::vector<float>(static_cast<std::size_t>(context.experts)));
  source.scores = [of_layer = std::move(of_layer), popularity, seed = context.seed, experts = context.experts](int layer, std::int64_t first,
                                                                                                               std::int64_t count, std::span<float> logits) {
    if (const auto known = of_layer.find(layer); known != of_layer.end()) return gumbel_logits(seed, layer, first, count, known->second, logits);
    std::vector<float> log_popularity(static_cast<std::size_t>(experts));
    popularity(layer, log_popularity);
    gumbel_logits(seed, layer, first, count, log_popularity, logits);
  };
}

std::vector<std::uint32_t> expert_order(std::uint64_t seed, int layer, int experts) {
  std::vector<std::uint32_t> order(static_cast<std::size_t>(experts));
  Rng(seed, Stream::popularity, 0, static_cast<std::uint32_t>(layer)).permutation(order);
  return order;
}

}  // namespace epsim
