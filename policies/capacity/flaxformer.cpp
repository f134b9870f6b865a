#include <algorithm>

#include "policies/capacity/shared/factor.h"

namespace epsim::parts_capacity {

/// Flaxformer's (T5X's) capacity: max(round(g factor / E), 4) for a group of g tokens, halves to the even neighbour; k is left out. First choices come before second ones, with `priority` those of tokens
/// with a large probability first; weights are raw. Source: flaxformer/architectures/moe/moe_layers.py, routing.py.
Capacity flaxformer(Params& p, const Shape* shape) {
  Capacity capacity;
  capacity.summary = "Each expert keeps max(round(g x factor / E), 4) choices of each group of g tokens; first choices come first (Flaxformer, T5X).";
  const Factor factor = read_factor(p, "capacity over the mean number of tokens an expert gets");
  capacity.group = p.integer("group", "tokens of a group; 0: all of a source rank", 4096, 0);
  const std::string order = p.choice("order", "kept first: first choices by token id and then second ones, or the same with tokens by their best probability (batch-prioritised)", {"choice", "priority"}, "choice");
  read_overflow(capacity, p);
  const std::int64_t least = p.integer("min_capacity", "capacity never goes below this", 4, 0, std::int64_t{1} << 32);
  if (!p.usable()) return capacity;
  capacity.order = order == "choice" ? Capacity::Order::choice : Capacity::Order::priority;
  check_order(capacity, p, shape);
  check_group(capacity, p);
  if (!p.usable()) return capacity;
  capacity.size = [factor, least](const Capacity::Block& b) { return std::max(factor.nearest(b.tokens, b.experts), least); };
  limit_by_size(capacity);
  return capacity;
}

}  // namespace epsim::parts_capacity
