#include <bit>

#include "policies/exchange/shared/along.h"

namespace epsim::parts_exchange {

/// Bruck's all-to-all (Bruck et al. 1997) for any number of ranks: ceil(log2 R) rounds; in round k rank i sends to i + 2^k (mod R), in one message, all rows it holds whose way still has the bit k. Few
/// messages, but a row travels as many hops as its distance has bits.
Exchange bruck(Params& p, const Shape*) {
  const lowering::Rows rows = lowering::read_dedup(p);
  const lowering::Chunks chunks = lowering::read_chunks(p, true);
  const auto journey = [](const Topology& topology) {
    const int ranks = topology.ranks(), rounds = std::bit_width(static_cast<unsigned>(ranks - 1));
    Journey j;
    // What a rank sends in a round may have come in any round before.
    for (int r = 0; r < rounds; ++r) j.rounds.push_back(r == 0 ? Journey::Round{} : Journey::Round{lowering::steps_from(0, r), {r - 1}, {}});
    j.last = [ranks](Rank s, Rank d) {
      const int highest = std::bit_width(static_cast<unsigned>(lowering::ahead(s, d, ranks))) - 1;
      return Journey::LastHop{highest, lowering::behind(d, ranks - (1 << highest), ranks)};
    };
    return j;
  };
  return lowering::along("log2 R rounds of one message a rank, in which rows are forwarded by powers of two", journey, rows, chunks);
}

}  // namespace epsim::parts_exchange
