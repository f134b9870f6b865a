#pragma once
#include <string>

#include "policies/capacity.h"
#include "policies/placement.h"
#include "policies/reach.h"
#include "policies/replica.h"

namespace epsim {

/// What a capacity limit cost (policies.md names these four counts).
struct DropCounts {
  std::int64_t choices = 0;         ///< choices that were dropped
  std::int64_t partial_tokens = 0;  ///< tokens that lost some but not all choices
  std::int64_t total_tokens = 0;    ///< tokens that lost every choice
  double weight = 0;                ///< combine weight of the dropped choices, summed
};

/// Who goes where in one layer: the choices, which of them are kept, and the slot each kept copy goes to.
struct Plan {
  int layer = 0;
  Routing routing;
  Placement placement;
  std::vector<std::int32_t> slot;          ///< [T][k] slot of the copy, -1 where the choice was dropped
  Matrix<std::int64_t> choices;            ///< [R][E] choices by home rank and expert
  Matrix<std::int64_t> copies;             ///< [R][P] copies by home rank and slot: of the choices that are kept, or, where a capacity drops on arrival, of all
  Matrix<std::int64_t> dropped_on_arrival; ///< [R][P] copies that travel but are not computed, and weigh nothing; empty: none
  std::vector<std::int64_t> padding;       ///< [P] rows that a slot computes with nothing in them; empty: none
  Matrix<std::int64_t> empty_rows;         ///< [R][R] rows with nothing in them that travel from a home rank to a rank, and back; empty: none
  Matrix<std::int64_t> limits;             ///< [R][E] capacity used; empty when dropless
  DropCounts drops;
  std::vector<Rank> shared_rank;           ///< [T] the rank that computes the token's shared expert; empty: each token's home rank
  Reach reach;                             ///< tokens by home rank and where their kept copies are, and their shared expert where that is another rank

  int ranks() const { return routing.ranks(); }
  std::vector<std::int64_t> copies_of_slot() const;  ///< [P] that arrive
  std::vector<std::int64_t> rows_of_slot() const;    ///< [P] that are computed: without those dropped on arrival, with padding
  std::vector<std::int64_t> copies_of_rank() const;  ///< [R] copies computed on each rank, without padding
  std::vector<std::int64_t> shared_rows_of_rank() const;  ///< [R] tokens whose shared expert the rank computes, if the layer has one
  /// XXH3-128 of everything that decides where data goes, as 32 hexadecimal digits. Equal on all processes, or they must not exchange a row.
  std::string digest() const;
};

/// Settles one routed layer under a placement: keeps choices within capacity and deals copies to replicas. Streams rank by rank.
Plan make_plan(int layer, Routing routing, const Capacity& capacity, Placement placement, const ReplicaRule& replica, const Topology& topology);
/// The same where `choices` are counted already.
Plan make_plan(int layer, Routing routing, Matrix<std::int64_t> choices, const Capacity& capacity, Placement placement, const ReplicaRule& replica,
               const Topology& topology);

}  // namespace epsim
