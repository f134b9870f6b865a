#include <bit>

#include "policies/exchange/shared/along.h"

namespace epsim::parts_exchange {

/// Pairwise exchange: R - 1 rounds, in each of which a rank sends to one rank and receives from one (MPICH's and Open MPI's pairwise all-to-all; Thakur, Rabenseifner and Gropp 2005).
/// In round r = 1 .. R - 1 rank i exchanges with i xor r where R is a power of two, else it sends to i + r and receives from i - r (mod R). It begins a round when what it sent in the round before has
/// arrived and what it was to receive in it has come; pairs without rows send nothing.
Exchange pairwise(Params& p, const Shape*) {
  const lowering::Rows rows = lowering::read_dedup(p);
  const lowering::Chunks chunks = lowering::read_chunks(p, false);
  const auto journey = [](const Topology& topology) {
    const int ranks = topology.ranks();
    const bool power = std::has_single_bit(static_cast<unsigned>(ranks));
    Journey j;
    for (int r = 0; r + 1 < ranks; ++r) j.rounds.push_back(r == 0 ? Journey::Round{} : Journey::Round{{r - 1}, {r - 1}, {}});
    j.last = [=](Rank s, Rank d) { return Journey::LastHop{(power ? s ^ d : lowering::ahead(s, d, ranks)) - 1, s}; };
    return j;
  };
  return lowering::along("R - 1 rounds, in each of which a rank exchanges with one other and waits for both directions", journey, rows, chunks);
}

}  // namespace epsim::parts_exchange
