#pragma once
#include "policies/exchange/shared/lowering.h"

namespace epsim::lowering {

/// What the rows of an exchange are: one for each copy, which all come back and are added at home in choice order; or one for each rank that holds any of a token's experts, which adds its copies'
/// results and returns one row.
enum class Rows { copy, rank };

/// The setting `dedup` (none or rank).
Rows read_dedup(Params& p);

/// The exchange whose rows all travel by themselves along a journey, there and back.
Exchange along(std::string_view summary, std::function<Journey(const Topology&)> journey, Rows rows, Chunks chunks);

/// The journey of one hop, straight to the destination.
Journey straight(std::int64_t rows_per_message = 0, bool one_sided = false);

/// How far `to` lies behind `from` when ranks are counted in a circle.
inline int ahead(Rank from, Rank to, int ranks) { return (to - from + ranks) % ranks; }
/// The rank that lies `steps` behind.
inline Rank behind(Rank from, int steps, int ranks) { return Rank((from + steps) % ranks); }

}  // namespace epsim::lowering
