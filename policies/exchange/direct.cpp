#include "policies/exchange/shared/along.h"

namespace epsim::parts_exchange {

/// Direct all-to-all: all messages at once, straight from the token's rank to the expert's and back (NCCL's grouped sends and receives, MPI's linear algorithm).
/// `dedup: none` sends a token once a copy; `dedup: rank` once a rank, whose copies are then added before they return.
Exchange direct(Params& p, const Shape*) {
  const lowering::Rows rows = lowering::read_dedup(p);
  const lowering::Chunks chunks = lowering::read_chunks(p, false);
  return lowering::along("all messages at once, straight from the token's rank to the expert's and back", [](const Topology&) { return lowering::straight(); }, rows, chunks);
}

}  // namespace epsim::parts_exchange
