#include "workloads/source/shared/synthetic.h"

namespace epsim::parts_source {

/// Each topic has a log-normal popularity of its own in each layer; all layers change to another topic together, as the text does.
Source topics(Params& p, const SourceContext* context) {
  Source source;
  source.summary = "synthetic gate logits; what is asked for changes between a few topics, each with log-normal popularity of its own";
  source.first_token = read_token_blocks(p, context);
  const std::int64_t topics = p.integer("topics", "how many there are", 4, 1, 1'000'000);
  const double sigma = p.number("sigma", "standard deviation of log(popularity) in a topic", 1.0, 0, 20);
  const std::int64_t every = p.integer("every", "batches that a topic lasts", 8, 1, 1'000'000);
  const std::string order = p.choice("order", "`cycle`: one after another; `random`: each time any of them", {"cycle", "random"}, "cycle");
  if (!p.usable() || !context) return source;
  make_synthetic(source, *context, BatchPopularity([=, random = order == "random", seed = context->seed](int layer, int batch, std::span<float> log_popularity) {
    constexpr std::int64_t kOrder = 1'000'001;  // a window beyond all topics
    const std::int64_t stretch = batch / every;
    const std::int64_t topic = random ? static_cast<std::int64_t>(batch_rng(seed, 0, kOrder + stretch, 0).below(static_cast<std::uint64_t>(topics))) : stretch % topics;
    for (std::size_t e = 0; e < log_popularity.size(); ++e) log_popularity[e] = static_cast<float>(sigma * batch_rng(seed, layer, topic, static_cast<std::int64_t>(e)).normal());
  }));
  return source;
}

}  // namespace epsim::parts_source
