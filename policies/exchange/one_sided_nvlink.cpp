#include "policies/exchange/shared/along.h"

namespace epsim::parts_exchange {

/// Rows are stored straight into the memory of each rank that holds any of a token's experts, once a rank, over a scale-up domain that all ranks share; the rank adds its copies' results and stores one
/// row back (intra-node kernels of DeepEP; TensorRT-LLM's one-sided NVLink all-to-all). Ranks of several nodes share no such domain: that is an InputError.
Exchange one_sided_nvlink(Params& p, const Shape* shape) {
  constexpr std::string_view summary = "rows are stored straight into the memory of each rank that needs them, over one scale-up domain that all ranks share";
  const lowering::Chunks chunks = lowering::read_chunks(p, false);
  if (p.usable() && shape && shape->nodes > 1)
    p.error("", "all ranks must share one scale-up domain, a node, and the cluster has " + std::to_string(shape->nodes) + " nodes: take a cluster of one node, or another exchange");
  return lowering::along(summary, [](const Topology&) { return lowering::straight(0, true); }, lowering::Rows::rank, chunks);
}

}  // namespace epsim::parts_exchange
