#pragma once
#include <cstdint>
#include <vector>

#include "policies/routed.h"

namespace epsim {

/// The kept choices of a batch that an expert computes, expert by expert and in token order within one: the order in which experts compute them.
struct Dispatch {
  std::vector<std::int64_t> first;  ///< [E + 1] rows of expert e are [first[e], first[e + 1])
  std::vector<std::int64_t> choice; ///< of each row, as its place in the [T][k] arrays of Routed
  std::vector<std::int64_t> row;    ///< [T][k] of each choice; -1 where there is none

  std::int64_t rows() const { return static_cast<std::int64_t>(choice.size()); }
};
Dispatch dispatch(const Routed& routed);

}  // namespace epsim
