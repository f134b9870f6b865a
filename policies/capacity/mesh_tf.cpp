#include <algorithm>

#include "policies/capacity/shared/factor.h"

namespace epsim::parts_capacity {

/// Mesh TensorFlow's capacity, and that of ST-MoE: max(min(g, int(g factor / E)), 4) for a group of g tokens. It leaves k out, so that a factor of 1.25 with two choices is 0.625 a choice. First choices
/// come before second ones; weights are not renormalised after drops. Source: mesh_tensorflow/transformer/moe.py; st-moe-pytorch `TopNGating` (its groups are sequences).
Capacity mesh_tf(Params& p, const Shape* shape) {
  Capacity capacity;
  capacity.summary = "Each expert keeps max(min(g, int(g x factor / E)), 4) choices of each group of g tokens; first choices come first (Mesh TensorFlow, ST-MoE).";
  const Factor factor = read_factor(p, "capacity over the mean number of tokens an expert gets; 1.25 in ST-MoE's training, 2 in its evaluation");
  capacity.group = p.integer("group", "tokens of a group; 0: all of a source rank", 1024, 0);
  read_overflow(capacity, p);
  const std::int64_t least = p.integer("min_capacity", "capacity never goes below this", 4, 0, std::int64_t{1} << 32);
  if (!p.usable()) return capacity;
  check_order(capacity, p, shape);
  check_group(capacity, p);
  if (!p.usable()) return capacity;
  capacity.order = Capacity::Order::choice;
  capacity.size = [factor, least](const Capacity::Block& b) { return std::max(std::min(b.tokens, factor.down(b.tokens, b.experts)), least); };
  limit_by_size(capacity);
  return capacity;
}

}  // namespace epsim::parts_capacity
