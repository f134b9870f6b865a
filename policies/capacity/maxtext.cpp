#include <algorithm>

#include "policies/capacity/shared/factor.h"

namespace epsim::parts_capacity {

/// MaxText's capacity of a batch row of S tokens: int(max(ceil(S k / E) factor, factor)), or, in its older form, int(S k / E factor); choices are kept in token order, all k of a token together.
Capacity maxtext(Params& p, const Shape* shape) {
  Capacity capacity;
  capacity.summary = "Each expert keeps int(max(ceil(S k / E) x factor, factor)) choices of each batch row of S tokens, in token order (MaxText).";
  const Factor factor = read_factor(p, "capacity over the mean number of choices an expert gets");
  capacity.group = p.integer("group", "tokens of a batch row; 0: all of a source rank", 0, 0);
  const bool older = p.choice("form", "the mean is rounded up before it is multiplied, or (older) not", {"current", "older"}, "current") == "older";
  read_overflow(capacity, p);
  if (!p.usable()) return capacity;
  check_order(capacity, p, shape);
  check_group(capacity, p);
  if (!p.usable()) return capacity;
  capacity.size = [factor, older](const Capacity::Block& b) {
    const std::int64_t choices = b.tokens * b.top_k;
    return older ? factor.down(choices, b.experts) : std::max(factor.down((choices + b.experts - 1) / b.experts, 1), factor.down(1, 1));
  };
  limit_by_size(capacity);
  return capacity;
}

}  // namespace epsim::parts_capacity
