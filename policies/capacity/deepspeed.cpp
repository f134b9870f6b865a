#include <algorithm>

#include "policies/capacity/shared/factor.h"

namespace epsim::parts_capacity {

/// DeepSpeed's capacity for a source rank with T tokens: max(ceil(T / E * factor k), min_capacity), in single precision. Who is kept depends on k: with k = 1 choices are drawn (random token selection),
/// with k = 2 first choices come before second ones, and from k = 3 on the highest probability is kept; where k > 1 the weights a token keeps are divided by their sum, so a lone survivor weighs 1.
/// Source: DeepSpeed `_capacity`, `top1gating`, `top2gating` and `topkgating` (deepspeed/moe/sharded_moe.py).
Capacity deepspeed(Params& p, const Shape* shape) {
  Capacity capacity;
  capacity.summary = "Each expert keeps max(ceil(T / E x factor k), min_capacity) choices of each source rank; with k > 1 the kept weights are renormalised.";
  const bool drops = p.flag("drop_tokens", "false: the capacity is the largest count, so that all are kept", true);
  const Factor factor = read_factor(p, "capacity over the mean number of choices an expert gets; not with `drop_tokens: false`", {"float32", "double", "exact"}, Rational{1, 1});
  const std::string order = p.choice("order", "kept first: by draw (DeepSpeed's default for k = 1), first choices by token id and then second ones (k = 2), the highest weight (k > 2), or the lowest token id",
                                     {"default", "random", "choice", "probability", "position"}, "default");
  read_overflow(capacity, p);
  const std::int64_t least = p.integer("min_capacity", "capacity never goes below this", 4, 0, std::int64_t{1} << 32);
  if (!p.usable()) return capacity;
  if (!drops && p.has("factor")) p.error("factor", "with `drop_tokens: false` there is no factor");
  const int k = shape ? shape->top_k : 2;
  capacity.order = order == "random" || (order == "default" && k == 1)        ? Capacity::Order::random
                   : order == "choice" || (order == "default" && k == 2)      ? Capacity::Order::choice
                   : order == "probability" || (order == "default" && k != 0) ? Capacity::Order::probability
                                                                              : Capacity::Order::position;
  check_order(capacity, p, shape);
  if (!p.usable()) return capacity;
  capacity.renormalise = k > 1;
  capacity.size = [factor, least, drops](const Capacity::Block& b) { return drops ? std::max(least, factor.up(b.tokens, b.experts, b.top_k)) : b.most; };
  limit_by_size(capacity);
  return capacity;
}

}  // namespace epsim::parts_capacity
