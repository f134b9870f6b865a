#include "policies/placement/shared/copies.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace epsim {
namespace {

/// A number and whose it is. Ordered so that a heap's front is the largest number, and of equals the lowest index.
template <class Real>
struct Largest {
  Real value;
  int index;
  friend bool operator<(const Largest& a, const Largest& b) { return a.value != b.value ? a.value < b.value : a.index > b.index; }
};

/// The other way around: a heap's front is the least number, and of equals the lowest index.
template <class Real>
struct Least {
  Real value;
  int index;
  friend bool operator<(const Least& a, const Least& b) { return a.value != b.value ? a.value > b.value : a.index > b.index; }
};

/// Gives the front of a heap another number and moves it down to its place.
template <class Entry>
void replace_front(std::vector<Entry>& heap, Entry entry) {
  std::size_t at = 0;
  for (std::size_t child = 1; child < heap.size(); child = 2 * at + 1) {
    if (child + 1 < heap.size() && heap[child] < heap[child + 1]) ++child;
    if (!(entry < heap[child])) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = entry;
}

}  // namespace

template <class Real>
std::vector<int> replicate(std::span<const Real> weight, std::int64_t copies) {
  ensure(copies >= static_cast<std::int64_t>(weight.size()) && !weight.empty(), "there is a copy for each expert");
  std::vector<int> out(weight.size()), count(weight.size(), 1);
  std::iota(out.begin(), out.end(), 0);
  out.reserve(static_cast<std::size_t>(copies));
  std::vector<Largest<Real>> heap;
  for (std::size_t e = 0; e < weight.size(); ++e) heap.push_back({weight[e], static_cast<int>(e)});
  std::make_heap(heap.begin(), heap.end());
  while (static_cast<std::int64_t>(out.size()) < copies) {
    const int e = heap.front().index;
    out.push_back(e);
    replace_front(heap, {weight[static_cast<std::size_t>(e)] / static_cast<Real>(++count[static_cast<std::size_t>(e)]), e});
  }
  return out;
}

template std::vector<int> replicate(std::span<const float>, std::int64_t);
template std::vector<int> replicate(std::span<const double>, std::int64_t);

std::vector<int> count_copies(std::span<const int> expert_of_copy, std::size_t experts) {
  std::vector<int> count(experts);
  for (const int e : expert_of_copy) ++count[static_cast<std::size_t>(e)];
  return count;
}

SortedCopies sort_copies(std::span<const int> expert_of_copy, std::span<const double> weight) {
  const std::vector<int> count = count_copies(expert_of_copy, weight.size());
  SortedCopies sorted{{expert_of_copy.begin(), expert_of_copy.end()}, {}};
  const auto part = [&](int e) { return weight[static_cast<std::size_t>(e)] / count[static_cast<std::size_t>(e)]; };
  std::ranges::stable_sort(sorted.expert, [&](int a, int b) { return part(a) > part(b); });
  for (const int e : sorted.expert) sorted.weight.push_back(part(e));
  return sorted;
}

template <class Real>
std::vector<int> pack_lightest(std::span<const Real> weight, std::vector<Real>& load, std::vector<int>& room) {
  std::vector<Least<Real>> heap;
  for (std::size_t r = 0; r < load.size(); ++r)
    if (room[r] > 0) heap.push_back({load[r], static_cast<int>(r)});
  std::make_heap(heap.begin(), heap.end());
  std::vector<int> out;
  out.reserve(weight.size());
  for (const Real w : weight) {
    ensure(!heap.empty(), "ranks have room for all items");
    const int best = heap.front().index;
    const auto r = static_cast<std::size_t>(best);
    out.push_back(best);
    load[r] += w;
    if (--room[r] > 0) {
      replace_front(heap, {load[r], best});
    } else {
      std::pop_heap(heap.begin(), heap.end());
      heap.pop_back();
    }
  }
  return out;
}

template std::vector<int> pack_lightest(std::span<const float>, std::vector<float>&, std::vector<int>&);
template std::vector<int> pack_lightest(std::span<const double>, std::vector<double>&, std::vector<int>&);

}  // namespace epsim
