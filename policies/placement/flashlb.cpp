#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/parallel.h"
#include "policies/placement/shared/copies.h"
#include "policies/placement/shared/slots.h"
#include "policies/placement/shared/table.h"
#include "policies/solve/assignment.h"

namespace epsim::parts_placement {
namespace {

using Table = std::vector<std::vector<int>>;  ///< experts of each rank

struct FlashSettings {
  double z;
  std::int64_t depth, width;
};

/// Loads of single batches and their moments.
struct Moments {
  Matrix<double> load;             ///< [batch][expert]
  std::vector<double> mean, risk;  ///< risk: mean + z x standard deviation
  Matrix<double> covariance;       ///< empty for a single batch

  Moments(Matrix<double> loads, double z) : load(std::move(loads)), mean(static_cast<std::size_t>(load.columns)), risk(mean.size()) {
    const auto batches = static_cast<double>(load.rows);
    for (std::int64_t t = 0; t < load.rows; ++t)
      for (std::size_t e = 0; e < mean.size(); ++e) mean[e] += load.row(t)[e] / batches;
    risk = mean;
    if (load.rows == 1) return;
    covariance = Matrix<double>(load.columns, load.columns);
    std::vector<double> off(mean.size());
    for (std::int64_t t = 0; t < load.rows; ++t) {
      for (std::size_t e = 0; e < mean.size(); ++e) off[e] = load.row(t)[e] - mean[e];
      for (std::int64_t a = 0; a < load.columns; ++a) {
        const std::span<double> row = covariance.row(a);
        const double x = off[static_cast<std::size_t>(a)] / batches;
        for (std::size_t b = 0; b < off.size(); ++b) row[b] += x * off[b];
      }
    }
    for (std::int64_t e = 0; e < load.columns; ++e) risk[static_cast<std::size_t>(e)] += z * std::sqrt(std::max(0.0, covariance(e, e)));
  }
};

/// What ranks carry while copies are placed.
class Packing {
 public:
  Packing(const Moments& m, std::span<const int> count, std::span<const int> room, double z)
      : m_(m), count_(count), room_(room), z_(z), table_(room.size()), mean_(room.size()), variance_(room.size()) {
    for (std::size_t r = 0; r < room.size(); ++r)
      if (room[r] > 0) open_.push_back(r);
  }

  /// Puts all copies of an expert where mean + z x deviation becomes least. That of one rank does not depend on the other copies, as long as no rank takes two.
  void put(int e) {
    const auto c = static_cast<std::size_t>(count_[static_cast<std::size_t>(e)]);
    choices_.clear();
    for (const std::size_t r : open_) choices_.push_back(look(e, r));
    const std::size_t apart = std::min(c, choices_.size());
    const auto end = choices_.begin() + static_cast<std::ptrdiff_t>(apart);
    std::partial_sort(choices_.begin(), end, choices_.end());
    for (std::size_t i = 0; i < apart; ++i) take(e, choices_[i]);
    std::erase_if(open_, [&](std::size_t r) { return static_cast<int>(table_[r].size()) == room_[r]; });
    // No rank with room is without the expert now: what is left makes twins.
    for (std::size_t copy = apart; copy < c; ++copy) {
      Choice best = look(e, open_[0]);
      for (const std::size_t r : open_) best = std::min(best, look(e, r));
      take(e, best);
      std::erase_if(open_, [&](std::size_t r) { return static_cast<int>(table_[r].size()) == room_[r]; });
    }
  }

  Table table() && { return std::move(table_); }

 private:
  struct Choice {
    double value;
    std::size_t rank;
    double variance;  ///< of the rank with the copy
    friend bool operator<(const Choice& a, const Choice& b) { return a.value != b.value ? a.value < b.value : a.rank < b.rank; }
  };

  double part(int e) const { return m_.mean[static_cast<std::size_t>(e)] / count_[static_cast<std::size_t>(e)]; }
  Choice look(int e, std::size_t r) const {
    const double mean = mean_[r] + part(e);
    if (m_.covariance.cells.empty()) return {mean, r, 0};
    const std::span<const double> with = m_.covariance.row(e);
    double sum = with[static_cast<std::size_t>(e)] / count_[static_cast<std::size_t>(e)];
    for (const int other : table_[r]) sum += 2 * with[static_cast<std::size_t>(other)] / count_[static_cast<std::size_t>(other)];
    const double variance = variance_[r] + sum / count_[static_cast<std::size_t>(e)];
    return {mean + z_ * std::sqrt(std::max(0.0, variance)), r, variance};
  }
  void take(int e, const Choice& choice) {
    table_[choice.rank].push_back(e);
    mean_[choice.rank] += part(e);
    variance_[choice.rank] = choice.variance;
  }

  const Moments& m_;
  std::span<const int> count_, room_;
  double z_;
  Table table_;
  std::vector<double> mean_, variance_;  ///< of each rank's load
  std::vector<std::size_t> open_;        ///< ranks with room, ascending
  std::vector<Choice> choices_;
};

/// Copies by mean load, heaviest first, each onto the rank with room and without that expert whose mean + z x deviation it leaves least.
Table pack(const Moments& m, std::span<const int> count, std::span<const int> room, double z) {
  std::vector<int> order(count.size());
  std::iota(order.begin(), order.end(), 0);
  const auto part = [&](int e) { return m.mean[static_cast<std::size_t>(e)] / count[static_cast<std::size_t>(e)]; };
  std::ranges::stable_sort(order, [&](int a, int b) { return part(a) > part(b); });
  Packing packing(m, count, room, z);
  for (const int e : order) packing.put(e);
  return std::move(packing).table();
}

/// Mean over batches of the heaviest rank's load in parts of the mean rank's; 1 is even.
double imbalance(const Moments& m, const Table& table, std::span<const int> count) {
  double sum = 0;
  for (std::int64_t t = 0; t < m.load.rows; ++t) {
    const std::span<const double> load = m.load.row(t);
    double most = 0;
    for (const std::vector<int>& experts : table) {
      double rank = 0;
      for (const int e : experts) rank += load[static_cast<std::size_t>(e)] / count[static_cast<std::size_t>(e)];
      most = std::max(most, rank);
    }
    const double total = std::accumulate(load.begin(), load.end(), 0.0);
    sum += (most * static_cast<double>(table.size()) + 0.01) / (total + 0.01);
  }
  return sum / static_cast<double>(m.load.rows);
}

/// How many copies each expert gets and where they go, searched together: experts by risk are cut into blocks, and block by block other numbers of copies for
/// the block are tried, the remaining ones going to the experts after it.
struct Search {
  const Moments& m;
  std::span<const int> room;
  FlashSettings settings;
  std::vector<int> count;
  Table table;
  double value = 0;

  Search(const Moments& moments, std::span<const int> rooms_of_ranks, FlashSettings s) : m(moments), room(rooms_of_ranks), settings(s) {
    const std::int64_t slots = std::accumulate(room.begin(), room.end(), std::int64_t{0});
    count = count_copies(replicate(std::span<const double>(m.risk), slots), m.risk.size());
    table = pack(m, count, room, settings.z);
    value = imbalance(m, table, count);
    if (slots == m.load.columns) return;
    std::vector<int> order(m.risk.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, [&](int a, int b) { return m.risk[static_cast<std::size_t>(a)] > m.risk[static_cast<std::size_t>(b)]; });
    const std::size_t blocks = std::min(order.size(), static_cast<std::size_t>(settings.depth));
    for (std::size_t i = 0; i + 1 < blocks; ++i) {
      const std::size_t begin = i * order.size() / blocks, end = (i + 1) * order.size() / blocks;
      try_budgets(std::span(order).subspan(begin, end - begin), std::span(order).subspan(end));
    }
  }

  std::int64_t copies(std::span<const int> experts) const {
    std::int64_t sum = 0;
    for (const int e : experts) sum += count[static_cast<std::size_t>(e)];
    return sum;
  }

  void share_out(std::span<const int> experts, std::int64_t copies_to_give, std::vector<int>& out) const {
    std::vector<double> risk;
    for (const int e : experts) risk.push_back(m.risk[static_cast<std::size_t>(e)]);
    const std::vector<int> given = count_copies(replicate(std::span<const double>(risk), copies_to_give), risk.size());
    for (std::size_t i = 0; i < given.size(); ++i) out[static_cast<std::size_t>(experts[i])] = given[i];
  }

  void try_budgets(std::span<const int> block, std::span<const int> rest) {
    const std::int64_t initial = copies(block), budget = initial + copies(rest);
    const std::vector<int> base = count;
    const auto attempt = [&](std::int64_t b) {
      if (b < static_cast<std::int64_t>(block.size()) || budget - b < static_cast<std::int64_t>(rest.size())) return;
      std::vector<int> tried = base;
      share_out(block, b, tried);
      share_out(rest, budget - b, tried);
      Table packed = pack(m, tried, room, settings.z);
      if (const double v = imbalance(m, packed, tried); v < value) value = v, count = std::move(tried), table = std::move(packed);
    };
    for (std::int64_t d = 1; d <= settings.width; ++d) attempt(initial - d);
    for (std::int64_t d = 1; d <= settings.width; ++d) attempt(initial + d);
  }
};

/// Gives rows of a table to the ranks that hold most of them already, the sum over ranks being the most there is.
Table redeploy(const Placement& old, const Table& table, int experts) {
  struct RowCopies {
    std::int64_t row;
    int copies;
  };
  std::vector<std::vector<RowCopies>> rows_with(static_cast<std::size_t>(experts));
  const auto ranks = static_cast<std::int64_t>(table.size());
  for (std::int64_t j = 0; j < ranks; ++j)
    for (const int e : table[static_cast<std::size_t>(j)]) {
      std::vector<RowCopies>& rows = rows_with[static_cast<std::size_t>(e)];
      if (rows.empty() || rows.back().row != j) rows.push_back({j, 0});
      ++rows.back().copies;
    }
  Matrix<double> cost(ranks, ranks);
  std::vector<int> mine(static_cast<std::size_t>(experts));
  for (std::int64_t i = 0; i < ranks; ++i) {
    const std::int32_t begin = old.first_slot[static_cast<std::size_t>(i)], end = old.first_slot[static_cast<std::size_t>(i) + 1];
    for (std::int32_t s = begin; s < end; ++s) {
      // Copy by copy, what a row and the rank have both.
      const std::size_t e = old.expert_of_slot[static_cast<std::size_t>(s)];
      ++mine[e];
      for (const RowCopies& r : rows_with[e])
        if (r.copies >= mine[e]) cost(i, r.row) -= 1;
    }
    for (std::int32_t s = begin; s < end; ++s) mine[old.expert_of_slot[static_cast<std::size_t>(s)]] = 0;
    for (std::int64_t j = 0; j < ranks; ++j) {
      const auto size = static_cast<std::int32_t>(table[static_cast<std::size_t>(j)].size());
      // A row of another length is dearer than all rows together.
      cost(i, j) = size == end - begin ? cost(i, j) + size : old.slots() + 1;
    }
  }
  Table out;
  for (const int j : least_cost_assignment(cost)) out.push_back(table[static_cast<std::size_t>(j)]);
  return out;
}

}  // namespace

/// FlashLB of vllm-ascend: how many copies and where is searched together, for loads that vary from batch to batch: an expert's weight is its mean and `z`
/// standard deviations, a rank's likewise with the covariance of its experts. The new rows then go to the ranks that hold most of them already (an assignment),
/// and what stays on a rank stays in its slot. A placement in force stays where mean/max of rank loads, mean over batches, is at least `value_threshold`, and
/// at least `ratio_threshold` of what a new plan gives; the original compares with the value after its last plan, which a function of the problem alone cannot
/// know.
PlacementPolicy flashlb(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary = "vllm-ascend's FlashLB: searches numbers of copies and their ranks together for loads that vary by batch, and moves few weights.";
  const std::int64_t wanted = read_slots(p, shape);
  FlashSettings settings{};
  settings.z =
      p.number("z", "standard deviations above the mean that count as load; the default is the 75th percentile of a normal load", 0.6744897501960817, 0);
  settings.depth = p.integer("depth", "blocks of experts whose numbers of copies are searched one after the other", 4, 1, 65'536);
  settings.width = p.integer("width", "copies fewer and more that are tried for a block", 8, 0, 65'536);
  const std::int64_t sample = p.integer("sample", "batches that are looked at, the newest", 64, 1);
  const double ratio = p.number("ratio_threshold", "plan anew below this part of what planning anew gives", 0.9, 0);
  const double threshold = p.number("value_threshold", "plan anew below this mean/max of rank loads", 0.85, 0);
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    const std::vector<std::int32_t> first = spread_slots(wanted ? wanted : problem.experts, problem.ranks);
    const std::vector<int> room = rooms(first);
    std::vector<Placement> placements(problem.counts.size());
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t i) {
      const auto l = static_cast<std::size_t>(i);
      const Matrix<std::int64_t> all = problem.loads_by_batch(l);
      Matrix<double> load(std::min(all.rows, sample), all.columns);
      std::copy(all.cells.end() - static_cast<std::ptrdiff_t>(load.cells.size()), all.cells.end(), load.cells.begin());
      const Moments moments(std::move(load), settings.z);
      const Search found(moments, room, settings);
      const Placement old = in_force(problem, l, first);
      if (!problem.previous.empty() && problem.previous[l].first_slot == first) {
        Table table(room.size());
        for (std::size_t r = 0; r < room.size(); ++r) table[r].assign(old.expert_of_slot.begin() + first[r], old.expert_of_slot.begin() + first[r + 1]);
        std::vector<int> count;
        for (const std::vector<Slot>& slots : old.slots_of_expert) count.push_back(static_cast<int>(slots.size()));
        const double value = 1 / imbalance(moments, table, count);
        if (value >= threshold && value >= ratio / found.value) {
          placements[l] = old;
          return;
        }
      }
      placements[l] = keep_slots(placement_of(redeploy(old, found.table, problem.experts), problem.experts), old);
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
