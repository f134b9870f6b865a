#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace epsim {

/// The expert of each of `copies` copies, in the order they are given: one each, by index, then always one more to the expert whose copies carry the most
/// (weight / copies; ties: lowest index). `Real`, float or double, is what quotients are rounded to. At least as many copies as experts.
template <class Real>
std::vector<int> replicate(std::span<const Real> weight, std::int64_t copies);

/// How often each of 0 .. experts-1 occurs.
std::vector<int> count_copies(std::span<const int> expert_of_copy, std::size_t experts);

/// Copies, heaviest first (ties: as given), each with weight / copies of its expert.
struct SortedCopies {
  std::vector<int> expert;
  std::vector<double> weight;
};
SortedCopies sort_copies(std::span<const int> expert_of_copy, std::span<const double> weight);

/// The rank of each item, given in the order of packing: each goes to the rank with the least weight that has room (ties: lowest rank). `load` is what ranks
/// carry already and `room` how many items they take; both are brought up to date. O(items x log ranks). Rooms hold all items.
template <class Real>
std::vector<int> pack_lightest(std::span<const Real> weight, std::vector<Real>& load, std::vector<int>& room);

}  // namespace epsim
