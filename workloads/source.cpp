#include "workloads/source.h"

#include <algorithm>

#include "base/rng.h"

namespace epsim {

std::vector<std::int64_t> token_blocks(std::int64_t tokens, int ranks) {
  std::vector<std::int64_t> first(static_cast<std::size_t>(ranks) + 1);
  for (int r = 0; r <= ranks; ++r) first[static_cast<std::size_t>(r)] = tokens / ranks * r + std::min<std::int64_t>(tokens % ranks, r);
  return first;
}

std::vector<std::int64_t> read_token_blocks(Params& params, const SourceContext* context) {
  constexpr std::int64_t kMost = std::int64_t{1} << 36;
  const std::int64_t per_rank = params.integer("tokens_per_rank", "tokens of each rank's batch (or give `tokens`)", 0, 1, kMost, "none");
  const std::int64_t total = params.integer("tokens", "tokens of all ranks together, in contiguous blocks (or give `tokens_per_rank`)", 0, 1, kMost, "none");
  const bool has_per_rank = params.has("tokens_per_rank"), has_total = params.has("tokens");
  if (!params.listing() && has_per_rank == has_total)
    params.error(has_total ? "tokens" : "", has_total ? "give `tokens` or `tokens_per_rank`, not both" : "how many tokens? give `tokens_per_rank` or `tokens`");
  if (!context || !params.usable() || context->ranks < 1) return {};
  if (has_per_rank && per_rank > kMost / context->ranks) params.error("tokens_per_rank", "more than 2^36 tokens on all ranks together");
  return token_blocks(has_total ? total : per_rank * context->ranks, context->ranks);
}

void token_vector(std::uint64_t seed, std::int64_t token, std::span<float> out) {
  Rng rng(seed, Stream::vectors, static_cast<std::uint64_t>(token));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = i == 0 ? 1.0F : static_cast<float>(rng.normal());
}

}  // namespace epsim
