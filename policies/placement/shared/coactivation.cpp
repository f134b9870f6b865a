#include "policies/placement/shared/coactivation.h"

namespace epsim {

Matrix<std::int64_t> coactivation(const Problem& problem, std::size_t layer) {
  Matrix<std::int64_t> pairs(problem.experts, problem.experts);
  for (const std::shared_ptr<const Routing>& batch : problem.tokens[layer]) {
    const auto k = static_cast<std::size_t>(batch->top_k);
    for (std::size_t first = 0; first < batch->expert.size(); first += k)
      for (std::size_t i = 1; i < k; ++i)
        for (std::size_t j = 0; j < i; ++j) ++pairs(batch->expert[first + i], batch->expert[first + j]);
  }
  // Each pair was counted once, in the order of its token's choices.
  for (int a = 0; a < problem.experts; ++a) {
    pairs(a, a) = 0;
    for (int b = 0; b < a; ++b) pairs(a, b) = pairs(b, a) = pairs(a, b) + pairs(b, a);
  }
  return pairs;
}

}  // namespace epsim
