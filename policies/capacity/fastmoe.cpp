#include <algorithm>

#include "policies/capacity/shared/factor.h"

namespace epsim::parts_capacity {

/// FastMoE's capacities. `gshard`: floor(ceil(factor T) k / E) choices of each source rank, which may be 0. `switch`: ceil(factor T / E) over all ranks' T tokens, and `dc`: ceil(factor T / R), both of all
/// ranks together, lower ranks first. FastMoE's kernels keep whoever comes first, in no fixed order; here that is the order of tokens. Weights are not renormalised.
/// Source: FastMoE fmoe/gates (`GShardGate`, `SwitchGate`), `limit_by_capacity`, `prune_gate_by_capacity`.
Capacity fastmoe(Params& p, const Shape* shape) {
  Capacity capacity;
  capacity.summary = "FastMoE's capacities of the GShard gate (by source rank) and of the Switch and DC gates (over all ranks), in token order.";
  const std::string gate = p.choice("gate", "whose capacity: floor(ceil(factor T) k / E) by source rank, or over all ranks ceil(factor T / E) or ceil(factor T / R)", {"gshard", "switch", "dc"}, "gshard");
  const Factor factor = read_factor(p, "capacity rate; FastMoE takes 1.2 in training and 2.4 in evaluation");
  read_overflow(capacity, p);
  if (!p.usable()) return capacity;
  check_order(capacity, p, shape);
  if (gate != "gshard" && capacity.by_replica()) p.error("overflow", "a capacity over all ranks says nothing about replicas");
  if (gate != "gshard" && capacity.dense) p.error("overflow", "of a capacity over all ranks no rank has a share to send");
  if (!p.usable()) return capacity;
  capacity.order = Capacity::Order::position;
  if (gate != "gshard") capacity.scope = Capacity::Scope::batch;
  capacity.size = [factor, gate, ranks = shape ? std::max(1, shape->ranks) : 1](const Capacity::Block& b) {
    if (gate == "gshard") return factor.up(b.tokens, 1) * b.top_k / b.experts;
    return factor.up(b.tokens, gate == "switch" ? b.experts : ranks);
  };
  limit_by_size(capacity);
  return capacity;
}

}  // namespace epsim::parts_capacity
