#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace epsim {

/// Whole loads, split over bins.
struct Split {
  std::int64_t fullest = 0;                        ///< load of the fullest bin
  std::vector<std::vector<std::int64_t>> amounts;  ///< [items][places] of the item's places, in their order
};

/// Splits each item's load in whole parts over the bins that may take it, so that no other split has a lower fullest bin. `places[i]`: the bins of item i, not empty; one that stands there twice takes two parts.
/// Starts from even splits and moves only what must move. Exact: a maximum flow (Dinic 1970) under a ceiling that rises to the ratio of each cut that proves it too low (as Dinkelbach's method does), which takes few steps.
Split min_max_split(std::span<const std::int64_t> loads, const std::vector<std::vector<int>>& places, int bins);

}  // namespace epsim
