#include <algorithm>

#include "policies/capacity/shared/factor.h"

namespace epsim::parts_capacity {

/// V-MoE's capacity (Riquelme et al. 2021): g k factor / E for a group of g tokens, rounded up (or to the nearest, halves to even) and then up to a multiple of 4. First choices come before second ones,
/// with batch-prioritised routing those of tokens with a large probability first; weights are raw probabilities. Source: vmoe/moe.py `compute_capacity`.
Capacity vmoe(Params& p, const Shape* shape) {
  Capacity capacity;
  capacity.summary = "Each expert keeps ceil(g k factor / E), up to a multiple of 4, of each group of g tokens; first choices come first, or batch-prioritised (V-MoE).";
  const Factor factor = read_factor(p, "capacity over the mean number of choices an expert gets");
  capacity.group = p.integer("group", "tokens of a group; 0: all of a source rank", 0, 0);
  const std::string order = p.choice("order", "kept first: first choices by token id and then second ones, or the same with tokens by their best probability (batch-prioritised)", {"choice", "priority"}, "choice");
  const bool up = p.choice("rounding", "up, or to the nearest with halves to even", {"ceil", "round"}, "ceil") == "ceil";
  const std::int64_t multiple = p.integer("multiple", "capacity is rounded up to a multiple of this", 4, 1, 65536);
  read_overflow(capacity, p);
  if (!p.usable()) return capacity;
  capacity.order = order == "choice" ? Capacity::Order::choice : Capacity::Order::priority;
  check_order(capacity, p, shape);
  check_group(capacity, p);
  if (!p.usable()) return capacity;
  capacity.size = [factor, up, multiple](const Capacity::Block& b) {
    const std::int64_t choices = b.tokens * b.top_k, size = up ? factor.up(choices, b.experts) : factor.nearest(choices, b.experts);
    return (size + multiple - 1) / multiple * multiple;
  };
  limit_by_size(capacity);
  return capacity;
}

}  // namespace epsim::parts_capacity
