#include <algorithm>

#include "policies/capacity/shared/factor.h"

namespace epsim::parts_capacity {

/// Tutel's capacity for a source rank with T tokens: k int(factor ceil(T / E)), rounded up to `alignment`; first choices come before second ones, and weights are not renormalised after drops.
/// Its capacity_factor of 0 is `limit: needed` here, and a negative one `limit: at_most`. Source: Tutel `extract_critical` (tutel/impls/fast_dispatch.py).
Capacity tutel(Params& p, const Shape* shape) {
  Capacity capacity;
  capacity.summary = "Each expert keeps k int(factor x ceil(T / E)) choices of each source rank, or as many as are needed; first choices come first.";
  const std::string limit = p.choice("limit", "the capacity: by the factor, the largest count (Tutel's factor 0), or the largest count but at most by the factor (a negative factor)",
                                     {"fixed", "needed", "at_most"}, "fixed");
  const Factor factor = read_factor(p, "capacity over the mean number of choices an expert gets", {"double", "exact"}, Rational{1, 1});
  const std::string order = p.choice("order", "kept first: first choices by token id and then second ones, or the same with tokens by their best probability (batch-prioritised)", {"choice", "priority"}, "choice");
  read_overflow(capacity, p);
  const std::int64_t alignment = p.integer("alignment", "capacity is rounded up to a multiple of this", 1, 1, 65536);
  if (!p.usable()) return capacity;
  if (limit == "needed" && p.has("factor")) p.error("factor", "with `limit: needed` there is no factor");
  capacity.order = order == "choice" ? Capacity::Order::choice : Capacity::Order::priority;
  check_order(capacity, p, shape);
  if (!p.usable()) return capacity;
  capacity.size = [factor, limit, alignment](const Capacity::Block& b) {
    const std::int64_t by_factor = b.top_k * factor.down((b.tokens + b.experts - 1) / b.experts, 1);
    const std::int64_t size = limit == "needed" ? b.most : limit == "at_most" ? std::min(b.most, by_factor) : by_factor;
    return (size + alignment - 1) / alignment * alignment;
  };
  limit_by_size(capacity);
  return capacity;
}

}  // namespace epsim::parts_capacity
