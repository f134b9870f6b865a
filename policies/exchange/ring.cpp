#include "policies/exchange/shared/along.h"

namespace epsim::parts_exchange {

/// Ring: rows go from neighbour to neighbour, always to the next rank, for as many of R - 1 steps as they have to. A rank begins a step when it has received what it forwards in it and its message of the
/// step before has arrived (MPI_Sendrecv on a ring).
Exchange ring(Params& p, const Shape*) {
  const lowering::Rows rows = lowering::read_dedup(p);
  const lowering::Chunks chunks = lowering::read_chunks(p, true);
  const auto journey = [](const Topology& topology) {
    const int ranks = topology.ranks();
    Journey j;
    for (int r = 0; r + 1 < ranks; ++r) j.rounds.push_back(r == 0 ? Journey::Round{} : Journey::Round{{r - 1}, {r - 1}, {}});
    j.last = [ranks](Rank s, Rank d) { return Journey::LastHop{lowering::ahead(s, d, ranks) - 1, lowering::behind(d, ranks - 1, ranks)}; };
    return j;
  };
  return lowering::along("rows travel from neighbour to neighbour in R - 1 steps", journey, rows, chunks);
}

}  // namespace epsim::parts_exchange
