#include "policies/exchange/shared/along.h"

namespace epsim::parts_exchange {

/// Spread-out (linear shift) all-to-all: rank i sends to i + 1, i + 2, ... (mod R), at most `window` messages under way: message j goes when message j - window has arrived. Unlike in `pairwise`, a rank
/// never waits for what it receives, so ranks drift apart, and several messages may come to one rank at a time. (MPICH's scattered all-to-all with MPIR_CVAR_ALLTOALL_THROTTLE, by default 32, and Open MPI's
/// linear_sync bound the messages under way likewise; the first waits for a whole batch, the second for any one of them.)
Exchange spread_out(Params& p, const Shape*) {
  const lowering::Rows rows = lowering::read_dedup(p);
  const auto window = static_cast<int>(p.integer("window", "messages that a rank has under way at most", 32, 1, 1 << 20));
  const lowering::Chunks chunks = lowering::read_chunks(p, false);
  const auto journey = [window](const Topology& topology) {
    const int ranks = topology.ranks();
    Journey j;
    for (int r = 0; r + 1 < ranks; ++r) j.rounds.push_back(r < window ? Journey::Round{} : Journey::Round{{}, {r - window}, {}});
    j.last = [ranks](Rank s, Rank d) { return Journey::LastHop{lowering::ahead(s, d, ranks) - 1, s}; };
    return j;
  };
  return lowering::along("all messages in an order that begins behind the sender, a window of them under way at a time", journey, rows, chunks);
}

}  // namespace epsim::parts_exchange
