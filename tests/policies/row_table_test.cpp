#include "policies/row_table.h"

#include <gmock/gmock.h>

#include "base/rng.h"

namespace epsim {
namespace {

RowTable::Entry entry(int s, int d, std::int64_t rows) { return {Rank(s), Rank(d), rows}; }

TEST(RowTable, SortsAddsUpAndLeavesOutWhatStays) {
  const RowTable t(3, {entry(2, 0, 5), entry(0, 1, 1), entry(1, 1, 9), entry(2, 0, 2), entry(0, 2, 0)});
  EXPECT_THAT(t.all(), testing::ElementsAre(entry(0, 1, 1), entry(2, 0, 7)));
  EXPECT_EQ(t.ranks(), 3);
  EXPECT_EQ(t(2, 0), 7);
  EXPECT_EQ(t(1, 1), 0);
  EXPECT_EQ(t.find(Rank(2), Rank(0)), 1);
  EXPECT_EQ(t.find(Rank(0), Rank(2)), -1);
  EXPECT_TRUE(t.from(Rank(1)).empty());
}

TEST(RowTable, RefusesRanksThatThereAreNotAndNegativeCounts) {
  EXPECT_THROW(RowTable(2, {entry(0, 2, 1)}), std::logic_error);
  EXPECT_THROW(RowTable(2, {entry(-1, 1, 1)}), std::logic_error);
  EXPECT_THROW(RowTable(2, {entry(0, 1, -1)}), std::logic_error);
  Matrix<std::int64_t> m(2, 2);
  m(0, 1) = -1;
  EXPECT_THROW(RowTable{m}, std::logic_error);
}

TEST(RowTable, IsTheSameFromAMatrixFromEntriesAndFromCounts) {
  for (std::uint64_t run = 0; run < 200; ++run) {
    Rng rng(1, Stream::test, run);
    const int ranks = 1 + static_cast<int>(rng.below(8));
    Matrix<std::int64_t> m(ranks, ranks);
    RowCounts counts(ranks);
    std::vector<RowTable::Entry> entries;
    const bool one_each = rng.below(2) == 0;  // every source has one destination only
    for (int i = 0; i < 40; ++i) {
      const auto s = static_cast<int>(rng.below(static_cast<std::uint64_t>(ranks)));
      const int d = one_each ? (s + 1) % ranks : static_cast<int>(rng.below(static_cast<std::uint64_t>(ranks)));
      const auto rows = static_cast<std::int64_t>(rng.below(3));
      if (s != d) m(s, d) += rows;
      counts.add(Rank(s), Rank(d), rows);
      entries.push_back(entry(s, d, rows));
    }
    const RowTable table(m);
    ASSERT_EQ(table, RowTable(ranks, entries));
    ASSERT_EQ(table, counts.table());
    ASSERT_EQ(table.dense(), m);
    for (int s = 0; s < ranks; ++s)
      for (int d = 0; d < ranks; ++d) ASSERT_EQ(table(s, d), m(s, d));
  }
}

}  // namespace
}  // namespace epsim
