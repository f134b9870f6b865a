#pragma once
#include <algorithm>
#include <numeric>
#include <vector>

#include "base/rng.h"
#include "policies/routing.h"

namespace epsim::testing {

/// A routing of `tokens[r]` tokens on each rank; every token chooses k distinct experts, low ones more often, with weights in (0, 1) of which some tie.
inline Routing random_routing(const std::vector<std::int64_t>& tokens, int experts, int top_k, std::uint64_t seed) {
  Routing routing;
  routing.experts = experts;
  routing.top_k = top_k;
  routing.first_token = {0};
  for (const std::int64_t n : tokens) routing.first_token.push_back(routing.first_token.back() + n);
  std::vector<std::uint16_t> all(static_cast<std::size_t>(experts));
  for (std::int64_t t = 0; t < routing.tokens(); ++t) {
    Rng rng(seed, Stream::test, static_cast<std::uint64_t>(t));
    std::iota(all.begin(), all.end(), std::uint16_t{0});
    for (int j = 0; j < top_k; ++j) {
      const auto left = static_cast<std::uint64_t>(experts - j);
      const std::uint64_t pick = std::min(rng.below(left), rng.below(left));
      std::swap(all[static_cast<std::size_t>(j)], all[static_cast<std::size_t>(j) + pick]);
      routing.expert.push_back(all[static_cast<std::size_t>(j)]);
      routing.weight.push_back(static_cast<float>(1 + rng.below(24)) / 32);
    }
  }
  return routing;
}

}  // namespace epsim::testing
