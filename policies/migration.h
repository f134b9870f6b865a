#pragma once
#include "policies/schedule.h"

namespace epsim {

/// The weights of an expert that travel to a rank that did not hold them.
struct Move {
  Rank from, to;
  Expert expert;
};

/// The weights of an expert that no rank holds any more, and where they are wanted.
struct Restore {
  Rank to;
  Expert expert;
};

/// What it takes to go from one placement of a layer to another. Swaps inside a rank are local copies and cost nothing here.
struct Migration {
  std::vector<Move> moves;         ///< by receiver, then expert
  std::vector<Restore> restores;   ///< by receiver, then expert
  std::int64_t changed_slots = 0;  ///< (rank, slot) pairs whose expert is another one, as vLLM and SwiftBalancer count; slots that appear are among them
  std::int64_t peers = 0;          ///< pairs of ranks that exchange weights
};

/// Each expert comes from a rank that held it, one of the receiver's node where there is one; of several the one that sends least so far, ties to the lowest. `before` and `after` are of the same ranks and experts; an expert that has no slot in `before` is restored.
Migration migration(const Placement& before, const Placement& after, const Topology& topology);

/// The migration as a transfer of its own: a row is an expert of `expert_bytes`.
Schedule migration_schedule(const Migration& migration, int ranks, Bytes expert_bytes);

}  // namespace epsim
