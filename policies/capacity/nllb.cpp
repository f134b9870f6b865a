#include <cmath>

#include "policies/capacity/shared/factor.h"

namespace epsim::parts_capacity {

/// NLLB-MoE's capacity (transformers' NllbMoeTop2Router): k ceil(T / E) choices of each source rank in training, ceil(fraction T) in evaluation; first choices come before second ones, those of tokens with a
/// large probability first with `priority`. Its weights are divided by what a token keeps (`normalise: after`), or by both probabilities before anything is dropped, as routers here do by themselves.
Capacity nllb(Params& p, const Shape* shape) {
  Capacity capacity;
  capacity.summary = "Each expert keeps k ceil(T / E) choices of each source rank; first choices come first, and kept weights are renormalised (NLLB-MoE).";
  const double fraction = p.number("fraction", "of a rank's tokens that an expert keeps in evaluation; 0: the capacity of training", 0, 0, 1);
  const std::string order = p.choice("order", "kept first: first choices by token id and then second ones, or the same with tokens by their best probability (batch-prioritised)", {"choice", "priority"}, "choice");
  capacity.renormalise = p.choice("normalise", "weights are divided by their sum after dropping, or are the router's own", {"after", "before"}, "after") == "after";
  read_overflow(capacity, p);
  if (!p.usable()) return capacity;
  capacity.order = order == "choice" ? Capacity::Order::choice : Capacity::Order::priority;
  check_order(capacity, p, shape);
  if (!p.usable()) return capacity;
  capacity.size = [fraction](const Capacity::Block& b) {
    return fraction > 0 ? static_cast<std::int64_t>(std::ceil(fraction * static_cast<double>(b.tokens))) : b.top_k * ((b.tokens + b.experts - 1) / b.experts);
  };
  limit_by_size(capacity);
  return capacity;
}

}  // namespace epsim::parts_capacity
