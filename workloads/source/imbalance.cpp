#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "workloads/source/shared/synthetic.h"

namespace epsim::parts_source {
namespace {

const std::vector<std::string> kNames = {"W0", "W1", "W2", "W3", "W4", "W5", "W6", "W7"};
constexpr float kCold = -80;  // never chosen: e^-80

/// Experts of a rank where experts lie in order, in equal blocks.
std::pair<int, int> block_of(int rank, int experts, int ranks) {
  return {static_cast<int>(static_cast<std::int64_t>(experts) * rank / ranks), static_cast<int>(static_cast<std::int64_t>(experts) * (rank + 1) / ranks)};
}

/// Rank r has r + 1/2 parts of the tokens: from almost nothing to twice the mean.
std::vector<std::int64_t> ragged(const std::vector<std::int64_t>& even) {
  std::vector<std::int64_t> out;
  const auto ranks = static_cast<double>(even.size() - 1);
  for (std::size_t r = 0; r < even.size(); ++r) out.push_back(static_cast<std::int64_t>(static_cast<double>(even.back()) * std::pow(static_cast<double>(r) / ranks, 2)));
  return out;
}

}  // namespace

/// Eight named kinds of imbalance, named as in the public benchmark of token imbalance that users ask Megatron-LM for; the numbers are ours (docs/data.md).
Source imbalance(Params& p, const SourceContext* context) {
  Source source;
  source.summary = "named imbalance: W0 balanced, W1 hot set, W2 hot rank, W3 spread hot, W4 ragged source, W5 zero-expert rank, W6 rotating hot spot, W7 burst";
  source.first_token = read_token_blocks(p, context);
  const std::string name = p.choice("preset", "W0 to W7", kNames);
  const double factor = p.number("factor", "how many times as popular as the others hot experts are", 8.0, 1, 1e6);
  if (!p.usable() || !context) return source;
  const int experts = context->experts, ranks = context->ranks;
  const bool even = name == "W0" || name == "W4" || name == "W5";
  if (even && p.has("factor")) p.error("factor", fmt::format("`factor` has no use in {}: no expert is hot", name));
  const bool whole_rank = name == "W2" || name == "W5" || name == "W6";
  if (whole_rank && experts < ranks) p.error("preset", fmt::format("{} needs an expert on each rank: there are {} experts and {} ranks", name, experts, ranks));
  const auto [cold_begin, cold_end] = block_of(0, experts, ranks);
  if (name == "W5" && experts - (cold_end - cold_begin) < context->top_k)
    p.error("preset", fmt::format("W5 needs top_k = {} experts outside the {} of rank 0, there are {}", context->top_k, cold_end - cold_begin, experts - (cold_end - cold_begin)));
  if (!p.usable()) return source;
  if (name == "W4") source.first_token = ragged(source.first_token);
  const int hot = std::max(1, experts / 16), spread = std::max(1, experts / ranks);
  make_synthetic(source, *context, BatchPopularity([=, seed = context->seed, log_factor = static_cast<float>(std::log(factor))](int layer, int batch, std::span<float> log_popularity) {
    std::ranges::fill(log_popularity, 0.0F);
    const auto add = [&](std::pair<int, int> block, float x) { std::for_each(log_popularity.begin() + block.first, log_popularity.begin() + block.second, [x](float& l) { l += x; }); };
    if (name == "W1") mark_hot(seed, layer, 0, hot, log_factor, log_popularity);
    if (name == "W2") add(block_of(0, experts, ranks), log_factor);
    if (name == "W3")
      for (int i = 0; i < spread; ++i) log_popularity[static_cast<std::size_t>(static_cast<std::int64_t>(i) * experts / spread)] += log_factor;
    if (name == "W5") add(block_of(0, experts, ranks), kCold);
    if (name == "W6") add(block_of(batch % ranks, experts, ranks), log_factor);
    constexpr int kLength = 4;
    constexpr double kChance = 0.25;
    if (name == "W7" && batch_rng(seed, layer, batch / kLength, 0).uniform() < kChance) mark_hot(seed, layer, batch / kLength, hot, log_factor, log_popularity);
  }));
  return source;
}

}  // namespace epsim::parts_source
