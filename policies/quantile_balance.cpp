#include "policies/quantile_balance.h"

#include <algorithm>
#include <functional>

namespace epsim {

std::vector<float> quantile_beta(const GateBatch& batch, int top_k, std::span<const float> beta) {
  const auto tokens = static_cast<std::size_t>(batch.tokens), experts = static_cast<std::size_t>(batch.experts);
  std::vector<float> alpha(tokens), row(experts), column(tokens), next(beta.begin(), beta.end());
  if (tokens == 0 || static_cast<std::size_t>(top_k) >= experts) return next;
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t e = 0; e < experts; ++e) row[e] = batch.logits[t * experts + e] - beta[e];
    std::nth_element(row.begin(), row.begin() + top_k, row.end(), std::greater());
    alpha[t] = row[static_cast<std::size_t>(top_k)];
  }
  const std::size_t target = std::min(tokens * static_cast<std::size_t>(top_k) / experts, tokens - 1);
  for (std::size_t e = 0; e < experts; ++e) {
    for (std::size_t t = 0; t < tokens; ++t) column[t] = batch.logits[t * experts + e] - alpha[t];
    std::nth_element(column.begin(), column.begin() + static_cast<std::ptrdiff_t>(target), column.end(), std::greater());
    next[e] = column[target];
  }
  return next;
}

}  // namespace epsim
