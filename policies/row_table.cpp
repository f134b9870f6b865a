#include "policies/row_table.h"

#include <algorithm>
#include <tuple>

#include "base/check.h"

namespace epsim {

RowTable::RowTable(int ranks, std::vector<Entry> entries) : entries_(std::move(entries)) {
  for (const Entry& e : entries_) {
    ensure(e.source >= 0 && e.source < ranks && e.destination >= 0 && e.destination < ranks, "rows go between ranks of the schedule");
    ensure(e.rows >= 0, "a transfer has no negative row count");
  }
  std::erase_if(entries_, [](const Entry& e) { return e.source == e.destination || e.rows == 0; });
  const auto less = [](const Entry& a, const Entry& b) { return std::tuple(a.source.value, a.destination.value) < std::tuple(b.source.value, b.destination.value); };
  if (!std::is_sorted(entries_.begin(), entries_.end(), less)) std::stable_sort(entries_.begin(), entries_.end(), less);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (kept > 0 && !less(entries_[kept - 1], entries_[i]))
      entries_[kept - 1].rows += entries_[i].rows;
    else
      entries_[kept++] = entries_[i];
  }
  entries_.resize(kept);
  index(ranks);
}

RowTable::RowTable(const Matrix<std::int64_t>& rows) {
  ensure(rows.rows == rows.columns, "a transfer has a row count for every pair of ranks");
  entries_.reserve(static_cast<std::size_t>(std::count_if(rows.cells.begin(), rows.cells.end(), [](std::int64_t n) { return n != 0; })));
  for (const Rank s : ids<Rank>(rows.rows))
    for (const Rank d : ids<Rank>(rows.rows)) {
      ensure(rows(s, d) >= 0, "a transfer has no negative row count");
      if (s != d && rows(s, d) > 0) entries_.push_back({s, d, rows(s, d)});
    }
  index(static_cast<int>(rows.rows));
}

void RowTable::index(int ranks) {
  first_.assign(static_cast<std::size_t>(ranks) + 1, 0);
  for (const Entry& e : entries_) ++first_[e.source + 1];
  for (int r = 0; r < ranks; ++r) first_[r + 1] += first_[r];
}

std::int64_t RowTable::find(Rank source, Rank destination) const {
  const std::span<const Entry> mine = from(source);
  const auto at = std::lower_bound(mine.begin(), mine.end(), destination.value, [](const Entry& e, std::int32_t d) { return e.destination < d; });
  return at != mine.end() && at->destination == destination ? first_[source] + (at - mine.begin()) : -1;
}

std::int64_t RowTable::operator()(Rank source, Rank destination) const {
  const std::int64_t at = find(source, destination);
  return at < 0 ? 0 : entries_[static_cast<std::size_t>(at)].rows;
}

Matrix<std::int64_t> RowTable::dense() const {
  Matrix<std::int64_t> m(ranks(), ranks());
  for (const Entry& e : entries_) m(e.source, e.destination) = e.rows;
  return m;
}

RowTable RowCounts::table() const { return dense_.cells.empty() ? RowTable(static_cast<int>(only_.size()), [&] {
    std::vector<RowTable::Entry> some;
    std::copy_if(only_.begin(), only_.end(), std::back_inserter(some), [](const RowTable::Entry& e) { return e.rows > 0; });
    return some;
  }()) : RowTable(dense_); }

void RowCounts::spread() {
  const auto ranks = static_cast<std::int64_t>(only_.size());
  dense_ = {ranks, ranks};
  for (const RowTable::Entry& e : only_)
    if (e.rows > 0) dense_(e.source, e.destination) = e.rows;
}

}  // namespace epsim
