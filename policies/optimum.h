#pragma once
#include <algorithm>
#include <functional>

#include "policies/load_bound.h"
#include "policies/machine_cuts.h"
#include "policies/schedule.h"

namespace epsim {

/// One batch of one layer, as every placement with these slots meets it.
struct Demand {
  Matrix<std::int64_t> kept;          ///< [R][E] copies to compute by home rank and expert
  std::vector<std::int32_t> slots;    ///< [R]
  int top_k = 1;                      ///< a token names at most so many different experts
  Matrix<std::int64_t> together;      ///< [E][E] tokens with copies of both experts; empty: not known
  std::vector<std::int64_t> tokens_with;  ///< [copies] tokens with so many copies; empty: not known
  RowFor dispatch_row_for = RowFor::token, combine_row_for = RowFor::token;  ///< of the exchange
  Bytes dispatch_row = 0, combine_row = 0;
  /// Seconds of one expert over rows, 1 or more. Must not fall with rows, and one call must not take longer than two with the same rows between them; both hold of `roofline`.
  std::function<double(std::int64_t rows)> expert_seconds;
  std::vector<double> shared_seconds;  ///< [R] of the shared expert over the rank's own tokens; empty: none
  double shared_anywhere_s = 0;        ///< of the shared expert over all tokens in one call at speed 1, where any rank may compute it for any token; then `shared_seconds` is empty. One call must not take longer than several
  std::vector<double> speed;           ///< [R] as in Problem; empty: all alike
  bool all_ways = true;                ///< the exchange goes the ways that the cuts know: not where ranks are down, around which it goes others
  bool in_turn = false;                ///< the replica rule deals in turn (ReplicaRule::in_turn); otherwise bounds hold with any rule
  bool hops_wait = true;               ///< a rank sends on what came by one hop only when all of it has come; not where chunks follow each other
  bool experts_wait = true;            ///< a rank's experts begin when all rows to it have come, whomever they are for, and results leave it, whosever they are, when all are done; not where chunks are computed one by one
};

/// Whether a schedule has all of a rank's experts in one kernel phase, so that they wait for all its rows: there are two, the shared expert's and theirs.
inline bool experts_wait(const Schedule& schedule) {
  return std::ranges::count(schedule.phases, Phase::Kind::kernel, &Phase::kind) <= 2;
}

/// Whether no transfer of a schedule waits for one before it to be sent, as that of a chunk does.
inline bool hops_wait(const Schedule& schedule) {
  return std::ranges::all_of(schedule.phases, [](const Phase& phase) { return phase.kind != Phase::Kind::transfer || phase.after_sent.empty(); });
}

/// What no placement into the demand's slots can pass. Each says which argument gave it.
struct OptimumBounds {
  Certificate load;        ///< copies on the fullest rank (policies/load_bound.h)
  Certificate dispatch_s;  ///< seconds that the busiest link of the dispatch is busy
  Certificate combine_s;
  Certificate layer_s;     ///< simulated time of the layer
};

/// Bounds over all placements and replica rules (but for `Demand::in_turn`), for slots and choices as they are. They rest on these facts:
/// 1. A rank with s slots computes at most the copies of its s most wanted experts for its own tokens; a node likewise with all its slots. All other copies of its tokens leave it, and come back as results. (`keep` below.)
/// 2. A row stands for at most m copies: 1 where each copy travels alone; the slots of one rank, of one node, or any number, but never more than top_k, where rows are merged there.
/// 3. What leaves (or enters) a rank or node crosses its cut, so some link of it is busy for bytes / (bandwidth of the cut) at least.
/// From these, for each stage:
/// - `home rank`, `home node`: rows of its tokens' copies that it cannot keep, in the dispatch out of it and in the combine into it;
/// - `serving ranks`, `serving nodes`: whatever a rank or node computes beyond what it can keep has to enter it. However the total is spread, some rank (node) is busy for as long as it takes until all of them together could have computed everything.
/// The layer's time adds what the schedules have in common: experts begin on a rank when all rows to it have come and results leave when all its experts are done (`experts_wait`), a rank computes one call at a time, a message needs its
/// path's latency.
/// - `busiest rank`: entering, computing and leaving one after another on one rank, spread over ranks as above, or with the load bound on the rank that is quickest with it;
/// - `computing`: all experts at once, one call each, and the shared expert, over all ranks' speeds (`shared expert` where nothing else is computed);
/// - `all in turn`, `calls and waits`, `company`: policies/turns_bound.h;
/// - `pigeonhole`: experts that the slots beyond one each cannot replicate lie whole on one rank, so some rank computes as much as packing them needs (policies/load_bound.h, in seconds); those that tokens of two ranks want wait for a
///   row and send one besides;
/// - `home rank`, `home node`, `serving nodes`: the stage bound with what must come before or after it: a call of one row, and a row's way.
/// Where the sources are not known (`kept` has one row for several ranks), bounds of traffic are 0 and the layer's is of computing alone. O(R E log E + R log^2 total); throws std::logic_error where sizes do not agree.
OptimumBounds optimum_bounds(const Demand& demand, const Topology& topology, const MachineCuts& cuts);

}  // namespace epsim
