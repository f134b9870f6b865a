#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/matrix.h"

namespace epsim {

/// The rows of one transfer by source and destination, only where there are any: by source, then destination. What stays on a rank is no part of it.
/// Memory follows the messages, so that an exchange of R - 1 rounds with a message a rank takes no more than one round with all of them.
class RowTable {
 public:
  struct Entry {
    Rank source, destination;
    std::int64_t rows = 0;
    friend bool operator==(const Entry&, const Entry&) = default;
  };

  RowTable() = default;
  /// Sorts the entries, adds up those of one pair, and leaves out what stays and pairs without rows. Throws std::logic_error on a rank that there is not and on a negative count.
  RowTable(int ranks, std::vector<Entry> entries);
  explicit RowTable(const Matrix<std::int64_t>& rows);

  int ranks() const { return first_.empty() ? 0 : static_cast<int>(first_.size()) - 1; }
  std::span<const Entry> all() const { return entries_; }
  std::span<const Entry> from(Rank source) const { return std::span(entries_).subspan(first_[source], first_[source + 1] - first_[source]); }
  /// Position of a pair in `all()`; -1 where it has no rows. O(log of the source's destinations).
  std::int64_t find(Rank source, Rank destination) const;
  std::int64_t operator()(Rank source, Rank destination) const;
  std::int64_t operator()(int source, int destination) const { return (*this)(Rank(source), Rank(destination)); }
  Matrix<std::int64_t> dense() const;
  friend bool operator==(const RowTable&, const RowTable&) = default;

 private:
  void index(int ranks);

  std::vector<Entry> entries_;
  std::vector<std::uint32_t> first_;  // [R+1]
};

/// Adds up the rows of one transfer. Takes [R] memory while every source has one destination, as in the rounds of many exchanges, and [R][R] otherwise.
class RowCounts {
 public:
  explicit RowCounts(int ranks) : only_(static_cast<std::size_t>(ranks)) {}
  void add(Rank source, Rank destination, std::int64_t rows) {
    if (source == destination || rows == 0) return;
    if (dense_.cells.empty()) {
      RowTable::Entry& one = only_[source];
      if (one.rows == 0) one = {source, destination, 0};
      if (one.destination == destination) {
        one.rows += rows;
        return;
      }
      spread();
    }
    dense_(source, destination) += rows;
  }
  RowTable table() const;

 private:
  void spread();

  std::vector<RowTable::Entry> only_;  // [R]; `rows` 0 where there is none
  Matrix<std::int64_t> dense_;
};

}  // namespace epsim
