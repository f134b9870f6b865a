#include "cli/matrix_csv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace epsim {
namespace {

Matrix<Bytes> read(std::string text) { return read_matrix_csv(std::make_shared<const SourceText>(SourceText{"m.csv", std::move(text)})); }

std::vector<std::string> problems_of(const std::string& text) {
  std::vector<std::string> out;
  try {
    read(text);
  } catch (const InputError& e) {
    for (const Diagnostic& d : e.problems()) out.push_back(std::to_string(d.at.line) + ":" + std::to_string(d.at.column) + " " + d.message);
  }
  return out;
}

TEST(MatrixCsv, ReadsWholeNumbersHoweverTheyAreWritten) {
  const Matrix<Bytes> m = read("0, 1e6,\t1.5e3\r\n4,0,1000000000000000\r\n7,8,0\n\n  \n");
  EXPECT_EQ(m.rows, 3);
  EXPECT_THAT(m.cells, testing::ElementsAre(0, 1'000'000, 1500, 4, 0, kMostPairBytes, 7, 8, 0));
}

TEST(MatrixCsv, PassesOverAByteOrderMark) { EXPECT_THAT(read("\xEF\xBB\xBF" "1,2\n3,4\n").cells, testing::ElementsAre(1, 2, 3, 4)); }

TEST(MatrixCsv, SaysEveryProblemWithItsPlace) {
  EXPECT_THAT(problems_of("0,-1\n1.5,  x\n"), testing::ElementsAre(testing::StartsWith("1:3 expected a byte count"), testing::StartsWith("2:1 expected a byte count"), testing::StartsWith("2:7 ")));
  EXPECT_THAT(problems_of("0,1,2\n3,0\n"), testing::ElementsAre(testing::StartsWith("1:1 row 1 has 3 values, but the number of rows is 2")));
  EXPECT_THAT(problems_of(""), testing::ElementsAre(testing::HasSubstr("empty")));
  EXPECT_THAT(problems_of("1e16"), testing::SizeIs(1));
  EXPECT_THAT(problems_of("0,,0\n0,0,0\n0,0,0"), testing::ElementsAre(testing::StartsWith("1:3 ")));
}

TEST(MatrixCsv, StopsAfterAHundredProblems) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += "x\n";
  EXPECT_EQ(problems_of(text).size(), 101u);
}

}  // namespace
}  // namespace epsim
