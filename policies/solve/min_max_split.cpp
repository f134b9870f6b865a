#include "policies/solve/min_max_split.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace epsim {
namespace {

/// One item's part in one bin.
struct Part {
  int item, bin;
  std::int64_t amount = 0;
};

/// Moves load along item -> bin -> (another item's part back to that item) -> another bin ... until it finds room. Bins have a common ceiling.
class Flow {
 public:
  Flow(std::span<const std::int64_t> loads, const std::vector<std::vector<int>>& places, int bins)
      : left_(loads.begin(), loads.end()), first_(loads.size() + 1), filled_(static_cast<std::size_t>(bins)), parts_in_(static_cast<std::size_t>(bins)) {
    for (std::size_t i = 0; i < loads.size(); ++i) {
      ensure(!places[i].empty() && loads[i] >= 0, "an item that is split has bins and no negative load");
      for (const int bin : places[i]) {
        parts_in_[static_cast<std::size_t>(bin)].push_back(static_cast<int>(parts_.size()));
        parts_.push_back({static_cast<int>(i), bin});
      }
      first_[i + 1] = static_cast<int>(parts_.size());
    }
  }

  /// Places what it can at once: an even part of each item's load in each of its bins, as far as there is room.
  void place_evenly(std::int64_t ceiling) {
    for (std::size_t i = 0; i < left_.size(); ++i) {
      std::int64_t rest = left_[i];
      for (int p = first_[i]; p < first_[i + 1]; ++p) {
        const std::int64_t even = rest / (first_[i + 1] - p);
        rest -= even;
        put(parts_[static_cast<std::size_t>(p)], std::min(even, ceiling - filled_[static_cast<std::size_t>(parts_[static_cast<std::size_t>(p)].bin)]));
      }
    }
  }

  /// Places all that fits; gives whether nothing is left over.
  bool fill(std::int64_t ceiling) {
    ceiling_ = ceiling;
    while (find_levels()) {
      next_item_ = first_;
      next_bin_.assign(filled_.size(), 0);
      for (std::size_t i = 0; i < left_.size(); ++i)
        while (left_[i] > 0 && push(static_cast<int>(i), left_[i]) > 0) {}
    }
    return std::ranges::all_of(left_, [](std::int64_t n) { return n == 0; });
  }

  /// After a fill that left something over: the load of the items that compete for it over the number of bins that are all they have, rounded up. No ceiling below can do.
  std::int64_t ceiling_of_cut() const {
    std::int64_t load = 0, bins = 0;
    for (std::size_t i = 0; i < left_.size(); ++i) {
      if (item_level_[i] < 0) continue;
      load += left_[i];
      for (int p = first_[i]; p < first_[i + 1]; ++p) load += parts_[static_cast<std::size_t>(p)].amount;
    }
    for (const int level : bin_level_) bins += level >= 0;
    return (load + bins - 1) / bins;
  }

  std::int64_t amount(int part) const { return parts_[static_cast<std::size_t>(part)].amount; }
  int first_part(std::size_t item) const { return first_[item]; }

 private:
  void put(Part& part, std::int64_t amount) {
    part.amount += amount;
    filled_[static_cast<std::size_t>(part.bin)] += amount;
    left_[static_cast<std::size_t>(part.item)] -= amount;
  }

  /// Steps from what is left over to each item and bin; true where a bin with room is among them.
  bool find_levels() {
    item_level_.assign(left_.size(), -1), bin_level_.assign(filled_.size(), -1);
    std::vector<int> items, bins;
    for (std::size_t i = 0; i < left_.size(); ++i)
      if (left_[i] > 0) item_level_[i] = 0, items.push_back(static_cast<int>(i));
    bool room = false;
    for (int level = 1; !items.empty() && !room; ++level) {
      bins.clear();
      for (const int i : items)
        for (int p = first_[static_cast<std::size_t>(i)]; p < first_[static_cast<std::size_t>(i) + 1]; ++p) {
          const auto bin = static_cast<std::size_t>(parts_[static_cast<std::size_t>(p)].bin);
          if (bin_level_[bin] >= 0) continue;
          bin_level_[bin] = level;
          bins.push_back(static_cast<int>(bin));
          room |= filled_[bin] < ceiling_;
        }
      items.clear();
      for (const int b : bins)
        for (const int p : parts_in_[static_cast<std::size_t>(b)]) {
          const Part& part = parts_[static_cast<std::size_t>(p)];
          if (part.amount == 0 || item_level_[static_cast<std::size_t>(part.item)] >= 0) continue;
          item_level_[static_cast<std::size_t>(part.item)] = level;
          items.push_back(part.item);
        }
    }
    return room;
  }

  /// Finds room for up to `want` of an item's load one level on; gives how much.
  std::int64_t push(int item, std::int64_t want) {
    const auto i = static_cast<std::size_t>(item);
    for (int& p = next_item_[i]; p < first_[i + 1]; ++p) {
      Part& part = parts_[static_cast<std::size_t>(p)];
      const auto bin = static_cast<std::size_t>(part.bin);
      if (bin_level_[bin] != item_level_[i] + 1) continue;
      if (filled_[bin] < ceiling_) {
        const std::int64_t amount = std::min(want, ceiling_ - filled_[bin]);
        put(part, amount);
        return amount;
      }
      for (std::size_t& next = next_bin_[bin]; next < parts_in_[bin].size(); ++next) {
        Part& other = parts_[static_cast<std::size_t>(parts_in_[bin][next])];
        if (other.amount == 0 || item_level_[static_cast<std::size_t>(other.item)] != bin_level_[bin]) continue;
        const std::int64_t amount = push(other.item, std::min(want, other.amount));
        if (amount == 0) continue;
        put(other, -amount);
        put(part, amount);
        return amount;
      }
    }
    return 0;
  }

  std::vector<std::int64_t> left_;  // [items] what has no bin yet; of an item on the way of a push, also what moves
  std::vector<int> first_;          // [items + 1] into parts_
  std::vector<Part> parts_;
  std::vector<std::int64_t> filled_;        // [bins]
  std::vector<std::vector<int>> parts_in_;  // [bins]
  std::int64_t ceiling_ = 0;
  std::vector<int> item_level_, bin_level_, next_item_;
  std::vector<std::size_t> next_bin_;
};

}  // namespace

Split min_max_split(std::span<const std::int64_t> loads, const std::vector<std::vector<int>>& places, int bins) {
  ensure(places.size() == loads.size() && bins > 0, "loads that are split have places");
  Flow flow(loads, places, bins);
  // What no split can avoid: the mean, and what has one bin only.
  const std::int64_t total = std::accumulate(loads.begin(), loads.end(), std::int64_t{0});
  std::vector<std::int64_t> fixed(static_cast<std::size_t>(bins));
  for (std::size_t i = 0; i < loads.size(); ++i)
    if (places[i].size() == 1) fixed[static_cast<std::size_t>(places[i].front())] += loads[i];
  Split split;
  split.fullest = std::max((total + bins - 1) / bins, *std::ranges::max_element(fixed));
  flow.place_evenly(split.fullest);
  while (!flow.fill(split.fullest)) split.fullest = flow.ceiling_of_cut();
  for (std::size_t i = 0; i < loads.size(); ++i) {
    split.amounts.emplace_back();
    for (int p = flow.first_part(i); p < flow.first_part(i + 1); ++p) split.amounts.back().push_back(flow.amount(p));
  }
  return split;
}

}  // namespace epsim
