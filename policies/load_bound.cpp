#include "policies/load_bound.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "base/check.h"

namespace epsim {
namespace {

constexpr std::string_view kMean = "mean", kSlots = "slots", kPigeonhole = "pigeonhole";

/// The largest of all sums of the k + 1 lightest of the k R + 1 heaviest items; `heaviest_first` is sorted.
double pigeonhole(std::span<const double> heaviest_first, std::int64_t ranks) {
  double most = 0;
  for (std::int64_t k = 1; k * ranks < static_cast<std::int64_t>(heaviest_first.size()); ++k) {
    double together = 0;
    for (std::int64_t i = k * ranks - k; i <= k * ranks; ++i) together += heaviest_first[static_cast<std::size_t>(i)];
    most = std::max(most, together);
  }
  return most;
}

/// Why no placement has a fullest rank of at most `most`; empty where nothing is known against it.
class Refutation {
 public:
  Refutation(std::span<const std::int64_t> loads, std::int64_t ranks, std::int64_t slots) : heaviest_first_(loads.begin(), loads.end()), ranks_(ranks), slots_(slots) {
    std::ranges::sort(heaviest_first_, std::greater());
  }
  std::string_view of(double most) const {
    std::int64_t needed = 0;
    std::size_t replicated = 0;
    for (const double load : heaviest_first_) {
      if (load <= most) break;
      // Rounded in favour of the placement.
      const double replicas = std::ceil(load / most * (1 - 1e-12));
      if (replicas > static_cast<double>(ranks_)) return kSlots;
      needed += static_cast<std::int64_t>(replicas);
      ++replicated;
    }
    needed += static_cast<std::int64_t>(heaviest_first_.size() - replicated);
    if (needed > slots_) return kSlots;
    const std::size_t taken = std::min(heaviest_first_.size(), replicated + static_cast<std::size_t>(slots_ - needed));
    return pigeonhole(std::span(heaviest_first_).subspan(taken), ranks_) > most * (1 + 1e-12) ? kPigeonhole : std::string_view();
  }

 private:
  std::vector<double> heaviest_first_;
  std::int64_t ranks_, slots_;
};

}  // namespace

Certificate load_bound(std::span<const std::int64_t> loads, std::span<const std::int32_t> slots, bool whole) {
  const std::int64_t total = std::accumulate(loads.begin(), loads.end(), std::int64_t{0}), all_slots = std::accumulate(slots.begin(), slots.end(), std::int64_t{0});
  const std::int64_t ranks = std::ranges::count_if(slots, [](std::int32_t s) { return s > 0; });
  ensure(all_slots >= static_cast<std::int64_t>(loads.size()), "every expert has a slot");
  if (total == 0) return {};
  const Refutation refutation(loads, ranks, all_slots);
  if (whole) {
    std::int64_t refuted = (total + ranks - 1) / ranks - 1, open = total;  // all on one rank is a placement; nothing refutes it
    std::string_view because = kMean;
    if (const std::string_view why = refutation.of(static_cast<double>(refuted + 1)); why.empty()) open = refuted + 1;
    while (open - refuted > 1) {
      const std::int64_t middle = refuted + (open - refuted) / 2;
      if (const std::string_view why = refutation.of(static_cast<double>(middle)); why.empty())
        open = middle;
      else
        refuted = middle, because = why;
    }
    return {static_cast<double>(refuted + 1), because};
  }
  double refuted = static_cast<double>(total) / static_cast<double>(ranks), open = static_cast<double>(total);
  std::string_view because = kMean;
  if (refutation.of(refuted).empty()) return {refuted, because};
  for (int i = 0; i < 100 && open - refuted > 1e-12 * open; ++i) {
    const double middle = (refuted + open) / 2;
    if (const std::string_view why = refutation.of(middle); why.empty())
      open = middle;
    else
      refuted = middle, because = why;
  }
  return {refuted, because};
}

Certificate packing_bound(std::vector<double> weights, int ranks) {
  if (weights.empty()) return {};
  std::ranges::sort(weights, std::greater());
  Certificate bound{std::accumulate(weights.begin(), weights.end(), 0.0) / ranks, kMean};
  if (weights.front() > bound.value) bound = {weights.front(), kSlots};
  if (const double together = pigeonhole(weights, ranks); together > bound.value) bound = {together, kPigeonhole};
  return bound;
}

}  // namespace epsim
