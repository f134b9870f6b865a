#include <algorithm>

#include "policies/capacity/shared/factor.h"

namespace epsim::parts_capacity {

/// Megatron-LM's capacity: each expert keeps ceil(T k / E * factor) choices of each source rank with T tokens; the others are dropped before they travel,
/// and weights are not renormalised. Source: Megatron-LM `get_capacity` and `apply_router_token_dropping` (`moe_token_drop_policy` is `order` here).
/// It multiplies the quotient by the factor in double precision, which can end just above a whole number (1000 tokens, k 6, 8 experts, factor 1.1: 826, exactly 825).
Capacity megatron(Params& p, const Shape* shape) {
  Capacity capacity;
  capacity.summary = "Each expert keeps ceil(T k / E x factor) choices of each source rank; the rest is dropped at the sender, without renormalising.";
  const Factor factor = read_factor(p, "capacity over the mean number of choices an expert gets", {"double", "float32", "exact"});
  const std::string order = p.choice("order", "kept first: the highest combine weight, or the lowest token id (ties of weight: lowest token id)", {"probability", "position"}, "probability");
  read_overflow(capacity, p);
  const std::int64_t least = p.integer("min_capacity", "capacity never goes below this", 0, 0, std::int64_t{1} << 32);
  if (!p.usable()) return capacity;
  capacity.order = order == "probability" ? Capacity::Order::probability : Capacity::Order::position;
  check_order(capacity, p, shape);
  if (!p.usable()) return capacity;
  capacity.size = [factor, least](const Capacity::Block& b) { return std::max(least, factor.up(b.tokens * b.top_k, b.experts)); };
  limit_by_size(capacity);
  return capacity;
}

}  // namespace epsim::parts_capacity
