#pragma once
#include <cstdint>
#include <vector>

#include "base/matrix.h"
#include "topology/topology.h"

namespace epsim {

struct Plan;

/// Of each home rank, how many of its tokens have a kept copy on a rank, on a node, or anywhere. A visit for the shared expert (`visits_by_rank`) counts as a copy.
struct Reach {
  Matrix<std::int64_t> ranks;        ///< [R][R] by home rank and rank
  Matrix<std::int64_t> nodes;        ///< [R][N] by home rank and node; [R][0] without a machine
  std::vector<std::int64_t> tokens;  ///< [R] by home rank
};

/// Looks at every token of a plan, in parallel over home ranks. With `chunks`, the tokens of a home rank are cut as `chunk_begin` says and each chunk has a row of its own: row home x chunks + chunk.
Reach reach_of(const Plan& plan, const Topology& topology, int chunks = 1);

/// Kept copies by chunk of a home rank and by rank: [R x chunks][R]. Visits are not among them.
Matrix<std::int64_t> copies_by_rank(const Plan& plan, int chunks);
/// Tokens that visit another rank than their own because that computes their shared expert, likewise; no rows where there are none.
Matrix<std::int64_t> visits_by_rank(const Plan& plan, int chunks);

/// Copies that arrive by chunk, of all home ranks, and by slot: [chunks][P].
Matrix<std::int64_t> copies_by_slot(const Plan& plan, int chunks);
/// Rows that are computed, likewise: without copies dropped on arrival, which are taken to be the last ones, and with a slot's padding in the last chunk.
Matrix<std::int64_t> rows_by_slot(const Plan& plan, int chunks);

/// The first of `tokens` tokens that is in chunk `chunk` of `chunks` contiguous ones, as equal as they can be.
constexpr std::int64_t chunk_begin(std::int64_t tokens, int chunk, int chunks) { return tokens * chunk / chunks; }

}  // namespace epsim
