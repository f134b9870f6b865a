#include "policies/least_load.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "base/check.h"
#include "policies/solve/min_max_split.h"

namespace epsim {
namespace {

constexpr std::size_t kMostPatterns = 50'000;  // programs of more take minutes
constexpr std::int64_t kMostLooks = 50'000'000;  // at replicas that may belong to a pattern
constexpr double kSlack = 1 + 1e-12;  // loads are sums of quotients

/// Experts rank by rank.
using Ranks = std::vector<std::vector<int>>;

Placement placement_of(const Ranks& ranks, int experts) {
  std::vector<std::uint16_t> expert_of_slot;
  std::vector<std::int32_t> first_slot{0};
  for (const std::vector<int>& on_rank : ranks) {
    for (const int e : on_rank) expert_of_slot.push_back(static_cast<std::uint16_t>(e));
    first_slot.push_back(static_cast<std::int32_t>(expert_of_slot.size()));
  }
  return Placement::from_experts(std::move(expert_of_slot), std::move(first_slot), experts);
}

double fullest_of(const Ranks& ranks, std::span<const std::int64_t> loads) {
  std::vector<int> count(loads.size());
  for (const std::vector<int>& on_rank : ranks)
    for (const int e : on_rank) ++count[static_cast<std::size_t>(e)];
  double most = 0;
  for (const std::vector<int>& on_rank : ranks) {
    double load = 0;
    for (const int e : on_rank) load += static_cast<double>(loads[static_cast<std::size_t>(e)]) / count[static_cast<std::size_t>(e)];
    most = std::max(most, load);
  }
  return most;
}

/// Exchanges replicas of the fullest rank with others while that makes the fuller of both ranks less full.
void exchange_replicas(Ranks& ranks, const std::function<double(int)>& weight) {
  const auto load = [&](std::size_t r) {
    double sum = 0;
    for (const int e : ranks[r]) sum += weight(e);
    return sum;
  };
  for (bool changed = true; changed;) {
    changed = false;
    std::vector<double> loads;
    for (std::size_t r = 0; r < ranks.size(); ++r) loads.push_back(load(r));
    const auto fullest = static_cast<std::size_t>(std::ranges::max_element(loads) - loads.begin());
    double least = loads[fullest] / kSlack;
    int *from = nullptr, *to = nullptr;
    for (int& mine : ranks[fullest])
      for (std::size_t r = 0; r < ranks.size(); ++r)
        for (int& other : ranks[r]) {
          const double less = weight(mine) - weight(other), fuller = std::max(loads[fullest] - less, loads[r] + less);
          if (r != fullest && fuller < least) least = fuller, from = &mine, to = &other;
        }
    if (from) std::swap(*from, *to), changed = true;
  }
}

/// A good placement to begin from: replicas for the heaviest, then the heaviest replica to the lightest rank with room, then exchanges.
Ranks begin(std::span<const std::int64_t> loads, std::span<const std::int32_t> slots) {
  const std::int64_t all = std::accumulate(slots.begin(), slots.end(), std::int64_t{0});
  std::vector<int> count(loads.size(), 1), items;
  const auto weight = [&](int e) { return static_cast<double>(loads[static_cast<std::size_t>(e)]) / count[static_cast<std::size_t>(e)]; };
  std::vector<int> experts(loads.size());
  std::iota(experts.begin(), experts.end(), 0);
  for (std::int64_t used = static_cast<std::int64_t>(loads.size()); used < all; ++used) ++count[static_cast<std::size_t>(*std::ranges::max_element(experts, {}, weight))];
  for (const int e : experts) items.insert(items.end(), static_cast<std::size_t>(count[static_cast<std::size_t>(e)]), e);
  std::ranges::stable_sort(items, std::greater(), weight);
  Ranks ranks(slots.size());
  std::vector<double> filled(slots.size());
  for (const int e : items) {
    std::size_t best = slots.size();
    for (std::size_t r = 0; r < slots.size(); ++r)
      if (static_cast<std::int32_t>(ranks[r].size()) < slots[r] && (best == slots.size() || filled[r] < filled[best])) best = r;
    ranks[best].push_back(e);
    filled[best] += weight(e);
  }
  exchange_replicas(ranks, weight);
  return ranks;
}

/// Even splits: what ranks may hold, and which of it they do.
class Patterns {
 public:
  /// Patterns of load up to `most`, which some placement has, and no less than what is left where all other ranks have as much.
  Patterns(std::span<const std::int64_t> loads, std::span<const std::int32_t> slots, double most) : loads_(loads), slots_(slots), most_(most * kSlack) {
    // Of each expert the replica counts that leave enough slots to the others, whose needs `most` says.
    const std::int64_t all = std::accumulate(slots.begin(), slots.end(), std::int64_t{0});
    std::vector<std::int64_t> needs;
    for (const std::int64_t load : loads) needs.push_back(std::max<std::int64_t>(1, static_cast<std::int64_t>(std::ceil(static_cast<double>(load) / most_))));
    const std::int64_t spare = all - std::accumulate(needs.begin(), needs.end(), std::int64_t{0});
    for (std::size_t e = 0; e < loads.size(); ++e)
      for (std::int64_t c = needs[e]; c <= needs[e] + spare; ++c) items_.push_back({static_cast<int>(e), static_cast<int>(c), static_cast<double>(loads[e]) / static_cast<double>(c)});
    std::ranges::stable_sort(items_, {}, &Item::weight);
    for (const std::int32_t s : slots) {
      if (s == 0) continue;
      const auto found = std::ranges::find(classes_, s, &Class::slots);
      if (found == classes_.end())
        classes_.push_back({s, 1});
      else
        ++found->ranks;
    }
    double ranks = 0;
    for (const Class& c : classes_) ranks += c.ranks;
    least_ = (static_cast<double>(std::accumulate(loads.begin(), loads.end(), std::int64_t{0})) - (ranks - 1) * most_) / kSlack;
    std::vector<int> chosen;
    for (std::size_t c = 0; c < classes_.size() && !too_many(); ++c) extend(static_cast<int>(c), chosen, 0, 0);
    std::ranges::stable_sort(patterns_, {}, &Pattern::load);
  }
  bool too_many() const { return patterns_.size() > kMostPatterns || looks_ > kMostLooks; }
  /// Loads that the fullest rank may have, rising.
  std::vector<double> levels() const {
    std::vector<double> out;
    for (const Pattern& p : patterns_)
      if (out.empty() || p.load > out.back() * kSlack) out.push_back(p.load);
    return out;
  }

  /// The program: a number of ranks for each pattern up to `level`, one replica count for each expert.
  IntegerProgram program(double level) const {
    IntegerProgram p;
    std::vector<std::vector<LinearProgram::Term>> of_item(items_.size()), of_class(classes_.size()), of_expert(loads_.size());
    for (const Pattern& pattern : patterns_) {
      if (pattern.load > level * kSlack) break;
      const int column = p.add_column({.high = static_cast<double>(classes_[static_cast<std::size_t>(pattern.of_class)].ranks)}, true);
      of_class[static_cast<std::size_t>(pattern.of_class)].push_back({column, 1});
      for (std::size_t i = 0; i < pattern.items.size(); ++i) {
        std::vector<LinearProgram::Term>& terms = of_item[static_cast<std::size_t>(pattern.items[i])];
        if (!terms.empty() && terms.back().column == column)
          terms.back().coefficient += 1;
        else
          terms.push_back({column, 1});
      }
    }
    for (std::size_t i = 0; i < items_.size(); ++i) {
      const int column = p.add_column({.high = 1}, true);
      of_item[i].push_back({column, -static_cast<double>(items_[i].count)});
      of_expert[static_cast<std::size_t>(items_[i].expert)].push_back({column, 1});
      p.linear.add_row(0, 0, std::move(of_item[i]));
    }
    for (auto& terms : of_expert) p.linear.add_row(1, 1, std::move(terms));
    for (std::size_t c = 0; c < classes_.size(); ++c) p.linear.add_row(classes_[c].ranks, classes_[c].ranks, std::move(of_class[c]));
    return p;
  }
  /// The ranks of a solution.
  Ranks read(const std::vector<double>& values) const {
    std::vector<std::vector<std::vector<int>>> of_class(classes_.size());
    for (std::size_t p = 0; p < patterns_.size() && p + items_.size() < values.size(); ++p)
      for (int n = static_cast<int>(values[p]); n > 0; --n) {
        std::vector<int> experts;
        for (const int i : patterns_[p].items) experts.push_back(items_[static_cast<std::size_t>(i)].expert);
        of_class[static_cast<std::size_t>(patterns_[p].of_class)].push_back(std::move(experts));
      }
    Ranks ranks;
    for (const std::int32_t s : slots_) {
      ranks.emplace_back();
      if (s == 0) continue;
      auto& open = of_class[static_cast<std::size_t>(std::ranges::find(classes_, s, &Class::slots) - classes_.begin())];
      ranks.back() = std::move(open.back());
      open.pop_back();
    }
    return ranks;
  }

 private:
  struct Item {
    int expert, count;  // a replica of an expert that has `count` of them
    double weight;
  };
  struct Class {
    std::int32_t slots, ranks;  // ranks with equally many slots
  };
  struct Pattern {
    int of_class;
    double load;
    std::vector<int> items;
  };

  void extend(int of_class, std::vector<int>& chosen, std::size_t from, double load) {
    const auto left = static_cast<double>(classes_[static_cast<std::size_t>(of_class)].slots) - static_cast<double>(chosen.size());
    if (left == 0) {
      patterns_.push_back({of_class, load, chosen});
      return;
    }
    // The lightest come first, and later ones are no lighter: the last must bring what is missing, and those before it must leave no more than the heaviest can.
    const double missing = least_ - load - (left - 1) * items_.back().weight;
    for (std::size_t i = std::max(from, static_cast<std::size_t>(std::ranges::lower_bound(items_, missing, {}, &Item::weight) - items_.begin())); i < items_.size() && load + left * items_[i].weight <= most_ && !too_many(); ++i) {
      ++looks_;
      const auto other_count = [&](int j) { return items_[static_cast<std::size_t>(j)].expert == items_[i].expert && items_[static_cast<std::size_t>(j)].count != items_[i].count; };
      if (std::ranges::any_of(chosen, other_count)) continue;
      chosen.push_back(static_cast<int>(i));
      extend(of_class, chosen, i, load + items_[i].weight);
      chosen.pop_back();
    }
  }

  std::span<const std::int64_t> loads_;
  std::span<const std::int32_t> slots_;
  double most_, least_ = 0;
  std::int64_t looks_ = 0;
  std::vector<Item> items_;
  std::vector<Class> classes_;
  std::vector<Pattern> patterns_;
};

LeastLoad least_even(std::span<const std::int64_t> loads, std::span<const std::int32_t> slots, const SolveLimits& limits) {
  const int experts = static_cast<int>(loads.size());
  Ranks best = begin(loads, slots);
  double least = load_bound(loads, slots, false).value, most = fullest_of(best, loads);
  bool searched = true;
  if (least * kSlack < most) {
    const Patterns patterns(loads, slots, most);
    searched = !patterns.too_many();
    const std::vector<double> levels = searched ? patterns.levels() : std::vector<double>();
    // Below levels[low] nothing is possible; at levels[high] something is, if not what the search found.
    std::size_t low = static_cast<std::size_t>(std::ranges::lower_bound(levels, least / kSlack) - levels.begin());
    std::size_t high = static_cast<std::size_t>(std::ranges::lower_bound(levels, most / kSlack) - levels.begin());
    // First without whole numbers: that is fast, and what it refutes is refuted.
    for (std::size_t end = high; low < end;) {
      const std::size_t middle = (low + end) / 2;
      if (solve(patterns.program(levels[middle]).linear).status == SolveStatus::infeasible)
        low = middle + 1;
      else
        end = middle;
    }
    bool open = false;  // a limit stopped the search
    for (std::size_t from = low; from < high;) {
      const std::size_t middle = (from + high) / 2;
      const IntegerSolution s = solve(patterns.program(levels[middle]), limits);
      if (!s.values.empty()) {
        best = patterns.read(s.values);
        most = fullest_of(best, loads);
        high = middle;
      } else {
        open |= s.status != SolveStatus::infeasible;
        from = middle + 1;
        if (!open) low = from;
      }
    }
    if (!levels.empty()) least = low < levels.size() ? std::min(most, std::max(least, levels[low])) : most;
  }
  return {most, least, searched, placement_of(best, experts)};
}

LeastLoad least_free(std::span<const std::int64_t> loads, std::span<const std::int32_t> slots, const SolveLimits& limits) {
  const auto experts = loads.size(), ranks = slots.size();
  const auto split = [&](const Ranks& on) {
    std::vector<std::vector<int>> places(experts);
    for (std::size_t r = 0; r < ranks; ++r)
      for (const int e : on[r]) places[static_cast<std::size_t>(e)].push_back(static_cast<int>(r));
    return min_max_split(loads, places, static_cast<int>(ranks));
  };
  Ranks best = begin(loads, slots);
  Split parts = split(best);
  double least = load_bound(loads, slots).value;
  if (least < static_cast<double>(parts.fullest)) {
    // Columns: the fullest rank, then for each expert and rank whether it is there, then how much it computes there.
    IntegerProgram p;
    p.add_column({.low = least, .high = static_cast<double>(parts.fullest), .cost = 1}, true);
    const auto there = [&](std::size_t e, std::size_t r) { return static_cast<int>(1 + e * ranks + r); };
    const auto amount = [&](std::size_t e, std::size_t r) { return static_cast<int>(1 + (experts + e) * ranks + r); };
    for (std::size_t i = 0; i < experts * ranks; ++i) p.add_column({.high = 1}, true);
    for (std::size_t e = 0; e < experts; ++e)
      for (std::size_t r = 0; r < ranks; ++r) p.add_column({.high = static_cast<double>(loads[e])}, false);
    std::vector<std::vector<LinearProgram::Term>> held(ranks), computed(ranks);
    for (std::size_t e = 0; e < experts; ++e) {
      std::vector<LinearProgram::Term> all, somewhere;
      for (std::size_t r = 0; r < ranks; ++r) {
        const double enough = std::min(static_cast<double>(loads[e]), static_cast<double>(parts.fullest));
        p.linear.add_row(-LinearProgram::kInfinity, 0, {{amount(e, r), 1}, {there(e, r), -enough}});
        all.push_back({amount(e, r), 1}), somewhere.push_back({there(e, r), 1});
        held[r].push_back({there(e, r), 1}), computed[r].push_back({amount(e, r), 1});
      }
      p.linear.add_row(static_cast<double>(loads[e]), static_cast<double>(loads[e]), std::move(all));
      p.linear.add_row(std::max(1.0, std::ceil(static_cast<double>(loads[e]) / static_cast<double>(parts.fullest))), LinearProgram::kInfinity, std::move(somewhere));
    }
    for (std::size_t r = 0; r < ranks; ++r) {
      p.linear.add_row(-LinearProgram::kInfinity, slots[r], std::move(held[r]));
      computed[r].push_back({0, -1});
      p.linear.add_row(-LinearProgram::kInfinity, 0, std::move(computed[r]));
    }
    p.start.assign(p.whole.size(), 0);
    p.start[0] = static_cast<double>(parts.fullest);
    std::vector<std::size_t> next(experts);
    for (std::size_t r = 0; r < ranks; ++r)
      for (const int e : best[r]) {
        p.start[static_cast<std::size_t>(there(static_cast<std::size_t>(e), r))] = 1;
        p.start[static_cast<std::size_t>(amount(static_cast<std::size_t>(e), r))] += static_cast<double>(parts.amounts[static_cast<std::size_t>(e)][next[static_cast<std::size_t>(e)]++]);
      }
    const IntegerSolution s = solve(p, limits);
    if (!s.values.empty()) {
      Ranks found(ranks);
      for (std::size_t r = 0; r < ranks; ++r) {
        for (std::size_t e = 0; e < experts; ++e)
          if (s.values[static_cast<std::size_t>(there(e, r))] > 0.5) found[r].push_back(static_cast<int>(e));
        // Slots that are left repeat what the rank has, or whatever comes first.
        while (static_cast<std::int32_t>(found[r].size()) < slots[r]) found[r].push_back(found[r].empty() ? 0 : found[r].front());
      }
      if (Split of_found = split(found); of_found.fullest <= parts.fullest) best = std::move(found), parts = std::move(of_found);
    }
    // The bound of the search may stray from a whole number by rounding only.
    least = std::max(least, std::ceil(std::min(s.status == SolveStatus::optimal ? s.cost : s.bound, static_cast<double>(parts.fullest)) - 1e-6));
  }
  LeastLoad out{static_cast<double>(parts.fullest), least, true, placement_of(best, static_cast<int>(experts))};
  out.placement.share.assign(out.placement.expert_of_slot.size(), 0);
  for (std::size_t e = 0; e < experts; ++e)
    for (std::size_t j = 0; j < parts.amounts[e].size(); ++j)
      out.placement.share[static_cast<std::size_t>(out.placement.slots_of_expert[e][j])] =
          loads[e] > 0 ? static_cast<double>(parts.amounts[e][j]) / static_cast<double>(loads[e]) : 1 / static_cast<double>(parts.amounts[e].size());
  return out;
}

}  // namespace

LeastLoad least_load(std::span<const std::int64_t> loads, std::span<const std::int32_t> slots, bool even, const SolveLimits& limits) {
  ensure(std::accumulate(slots.begin(), slots.end(), std::int64_t{0}) >= static_cast<std::int64_t>(loads.size()), "every expert has a slot");
  return even ? least_even(loads, slots, limits) : least_free(loads, slots, limits);
}

}  // namespace epsim
