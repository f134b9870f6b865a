#pragma once
#include "policies/load_bound.h"
#include "policies/placement.h"
#include "policies/solve/integer_program.h"

namespace epsim {

/// The placement whose fullest rank is lowest, or as near to it as the limits let the search come.
struct LeastLoad {
  double load = 0;      ///< of the fullest rank of `placement`
  double bound = 0;     ///< no placement has a lower fullest rank; equal to `load` (but for rounding) where that is proven best
  bool searched = true;  ///< false: there are too many ways to fill a rank to begin
  Placement placement;  ///< with shares where splits are free
};

/// Searches replica counts and ranks at once, for small cases (a dozen experts, a few slots a rank). `even`: every replica of an expert takes the same part, as EPLB and its kin count; otherwise copies are split freely in whole
/// parts. Two replicas may meet on a rank; every slot is used. `limits` hold for each program that is solved, of which there are about ten.
/// Even splits: whole ranks are patterns of replicas (so equal ranks cannot be confused with each other), one number of ranks for each pattern, and the fullest rank is found by bisection over the patterns' loads. Where there are more than 50,000 patterns
/// the search does not begin. Free splits: one program of which expert is on which rank, from the even placement on.
LeastLoad least_load(std::span<const std::int64_t> loads, std::span<const std::int32_t> slots, bool even, const SolveLimits& limits = {});

}  // namespace epsim
