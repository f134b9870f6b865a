#include <algorithm>
#include <limits>

#include "policies/capacity/shared/factor.h"

namespace epsim::parts_capacity {

/// MegaBlocks (Gale et al. 2022). `dmoe` drops nothing: each expert computes its rows in blocks of 128. `moe` has a capacity of int(factor k T / E) for the T tokens of all ranks, and 0 means that nothing
/// is dropped; choices travel first and are dropped by the expert's rank, those of lower ranks and tokens being kept. `moe_ep`: the expert-parallel path calls the same with k times the tokens, so that its
/// capacity is k times larger. Experts compute as many rows as their capacity. Source: MegaBlocks `ParallelMLP.expert_capacity` (megablocks/layers/moe.py).
Capacity megablocks(Params& p, const Shape*) {
  Capacity capacity;
  capacity.summary = "MegaBlocks: no drops and rows in blocks of 128 (dmoe), or a capacity over all ranks, with drops where choices arrive (moe, moe_ep).";
  const std::string form = p.choice("form", "dropless in blocks; with a capacity; or with the k times larger one of its expert-parallel path", {"dmoe", "moe", "moe_ep"}, "dmoe");
  const Factor factor = read_factor(p, "capacity over the mean number of choices an expert gets; of `moe` and `moe_ep`", {"double", "exact"}, Rational{1, 1});
  const std::int64_t block = p.integer("block", "of `dmoe`: an expert computes a multiple of this many rows", 128, 1, 65536);
  if (!p.usable()) return capacity;
  if (form == "dmoe" && p.has("factor")) p.error("factor", "`dmoe` drops nothing: a factor is for `form: moe` or `moe_ep`");
  if (form == "dmoe" && p.has("arithmetic")) p.error("arithmetic", "`dmoe` has no capacity");
  if (form != "dmoe" && p.has("block")) p.error("block", "blocks are for `form: dmoe`");
  if (form != "dmoe" && !p.has("factor")) p.error("factor", "a capacity needs `factor`");
  if (!p.usable()) return capacity;
  if (form == "dmoe") {
    capacity.row_block = block;
    return capacity;
  }
  capacity.scope = Capacity::Scope::batch;
  capacity.on_arrival = capacity.pad = true;
  capacity.size = [factor, times = form == "moe_ep"](const Capacity::Block& b) {
    // k T / E is computed first, so that the factor multiplies what MegaBlocks multiplies it with.
    const std::int64_t size = factor.down(b.tokens * b.top_k * (times ? b.top_k : 1), b.experts);
    return size > 0 ? size : b.most;
  };
  limit_by_size(capacity);
  return capacity;
}

}  // namespace epsim::parts_capacity
