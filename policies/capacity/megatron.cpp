#include <algorithm>
#include <cmath>

#include "policies/capacity.h"

namespace epsim::parts_capacity {
namespace {

struct Settings {
  Rational factor;
  bool exact = false;
  std::int64_t least = 0;
};

/// ceil(tokens k / experts * factor), in integers or with Megatron's own rounding: it multiplies the quotient by the factor in double precision,
/// which can end just above a whole number (1000 tokens, k 6, 8 experts, factor 1.1: 826, exactly 825).
std::int64_t capacity_of(std::int64_t tokens, int top_k, int experts, const Settings& s) {
  const std::int64_t choices = tokens * top_k;
  if (!s.exact) {
    const double c = std::ceil(static_cast<double>(choices) / static_cast<double>(experts) * s.factor.value());
    // No expert is chosen more than once by a token, so a larger capacity than that is no limit; it also keeps the conversion in range.
    return std::max(s.least, static_cast<std::int64_t>(std::min(c, 1e15)));
  }
  using Wide = unsigned __int128;
  const Wide up = static_cast<Wide>(choices) * static_cast<Wide>(s.factor.num), down = static_cast<Wide>(experts) * static_cast<Wide>(s.factor.den);
  return std::max(s.least, static_cast<std::int64_t>(std::min<Wide>((up + down - 1) / down, 1'000'000'000'000'000)));
}

}  // namespace

/// Megatron-LM's capacity: each expert keeps ceil(T k / E * factor) choices of each source rank with T tokens; the others are dropped before they travel,
/// and weights are not renormalised. Source: Megatron-LM `get_capacity` and `apply_router_token_dropping` (`moe_token_drop_policy` is `order` here).
Capacity megatron(Params& p, const Shape* shape) {
  Capacity capacity;
  capacity.summary = "Each expert keeps ceil(T k / E x factor) choices of each source rank; the rest is dropped at the sender, without renormalising.";
  Settings s;
  s.factor = p.rational("factor", "capacity over the mean number of choices an expert gets");
  s.exact = p.choice("arithmetic", "of the capacity: `double` rounds as Megatron does, `exact` takes the factor as a fraction", {"double", "exact"},
                     "double") == "exact";
  const std::string order = p.choice("order", "kept first: the highest combine weight, or the lowest token id (ties of weight: lowest token id)",
                                     {"probability", "position"}, "probability");
  p.choice("overflow", "what becomes of a choice that does not fit", {"drop"}, "drop");
  s.least = p.integer("min_capacity", "capacity never goes below this", 0, 0, std::int64_t{1} << 32);
  if (!p.usable()) return capacity;
  if (order == "probability" && shape && shape->source_has_choices && !shape->source_has_weights) {
    p.error("order", "the source has no weights to order choices by; give `order: position` or a source with weights");
    return capacity;
  }
  capacity.order = order == "probability" ? Capacity::Order::probability : Capacity::Order::position;
  capacity.limits = [s](const Matrix<std::int64_t>& choices, const Routing& routing) {
    Matrix<std::int64_t> limits(choices.rows, choices.columns);
    for (std::int64_t r = 0; r < limits.rows; ++r) {
      const auto home = static_cast<std::size_t>(r);
      const std::int64_t tokens = routing.first_token[home + 1] - routing.first_token[home];
      std::ranges::fill(limits.row(r), capacity_of(tokens, routing.top_k, routing.experts, s));
    }
    return limits;
  };
  return capacity;
}

}  // namespace epsim::parts_capacity
