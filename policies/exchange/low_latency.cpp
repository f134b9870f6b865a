#include "policies/exchange/shared/along.h"

namespace epsim::parts_exchange {

/// One-sided exchange of single rows, as in DeepEP's low-latency kernels: every copy is written straight into its destination's memory by one RDMA message, all at once, without de-duplication, and every
/// result returns alike and is added at home.
Exchange low_latency(Params& p, const Shape*) {
  const lowering::Chunks chunks = lowering::read_chunks(p, false);
  return lowering::along("every copy is written straight into its destination's memory by a message of its own", [](const Topology&) { return lowering::straight(1, true); }, lowering::Rows::copy, chunks);
}

}  // namespace epsim::parts_exchange
