#pragma once
#include <memory>
#include <string>
#include <vector>

#include "policies/schedule.h"
#include "sim/compute/compute.h"
#include "sim/events.h"
#include "sim/rebalance.h"

namespace epsim {

/// The ranks that are up while others are not, and the parts made for them. Here ranks and nodes are numbered anew, in the same order; policies see nothing of the others.
struct Survivors {
  int ranks = 0, nodes = 0;     ///< of the whole machine
  std::vector<Rank> up;         ///< [U] ranks of the whole machine, ascending
  std::vector<Node> node;       ///< [nodes of `topology`] nodes of the whole machine
  Topology topology;            ///< of the ranks that are up
  Topology placing;             ///< what placements see: `topology`, as one node where the policy cannot do with nodes of unequal size
  Capacity capacity;
  PlacementPolicy placement;
  ReplicaRule replica;
  Exchange exchange;
};

/// Batches, from one on, in which ranks do not change.
struct Era {
  int batch = 0;
  std::vector<double> speeds;                  ///< [R] of the whole machine's ranks; empty: all alike
  std::shared_ptr<const Survivors> survivors;  ///< null: every rank is up
  bool other_ranks = false;                    ///< others are up than before: placements are made anew at once
  std::string what;                            ///< "rank 3 fails"; empty at the beginning

  int ranks_up(int ranks) const { return survivors ? static_cast<int>(survivors->up.size()) : ranks; }
};

/// The eras of the batches that are played, the first from its first batch on; survivors come without parts. Reports every event with a rank that there is not, that fails twice, joins while it is up, leaves none, or lies outside the batches.
std::vector<Era> eras_of(const Changes& changes, const Topology& topology, const BatchRange& eval, Diagnostics& problems);

/// The model on ranks of these speeds [R]: a kernel, its launch included, takes 1 / speed of its rank as long. Reduces only move memory and take as long as ever. No speeds: the model itself.
ComputeModel at_speeds(ComputeModel model, std::vector<double> speeds);

/// Tokens of ranks that are down go to those that are up, each block in contiguous pieces as equal as they can be, in rank order after the tokens that are there, or nowhere. Gives the survivors' routing.
Routing rehomed(const Routing& whole, const Survivors& survivors, Changes::Tokens tokens);
/// The same of counts by home rank [R][...]: what does not divide goes to the first ranks. Gives [U][...].
Matrix<std::int64_t> rehomed(const Matrix<std::int64_t>& whole, const Survivors& survivors, Changes::Tokens tokens);

/// A placement, plan or schedule of survivors on the whole machine, where ranks that are down have no slots, tokens or work.
Placement on_whole_machine(Placement of_survivors, const Survivors& survivors);
Plan on_whole_machine(Plan of_survivors, const Survivors& survivors);
Schedule on_whole_machine(Schedule of_survivors, const Survivors& survivors);
/// A placement in which only ranks that are up have slots, as survivors number them.
Placement among_survivors(Placement whole, const Survivors& survivors);
/// What is left of a placement on the whole machine without the slots of ranks that are down. Experts may have none, and shares are gone: it need not pass `check`.
Placement what_is_left(const Placement& whole, const Survivors& survivors);

}  // namespace epsim
