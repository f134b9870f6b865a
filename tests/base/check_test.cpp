#include "base/check.h"

#include <gmock/gmock.h>

#include <cstdio>
#include <fstream>

namespace epsim {
namespace {

using testing::HasSubstr;

std::shared_ptr<const SourceText> source(std::string text) { return std::make_shared<SourceText>(SourceText{"a.yaml", std::move(text)}); }
std::string rendered(std::string text, int line, int column) {
  Diagnostic d;
  d.at = Location{source(std::move(text)), line, column};
  d.message = "no";
  return render(d);
}

TEST(Check, ADiagnosticShowsTheLineWithACaret) {
  EXPECT_EQ(rendered("one\ntwo: 3\n", 2, 6), "a.yaml:2:6: error: no\n  two: 3\n       ^");
  EXPECT_EQ(rendered("x", 0, 0), "a.yaml: error: no");
  EXPECT_EQ(render(Diagnostic{Location{}, "no"}), "error: no");
  EXPECT_EQ(rendered("x", 9, 9), "a.yaml:9:9: error: no");
  EXPECT_THAT(rendered("a\tb\x1b[31m", 1, 3), HasSubstr("  a b [31m\n    ^"));
}

TEST(Check, AllProblemsAreSaidAtOnce) {
  Diagnostics problems;
  problems.check();
  problems.add({source("x"), 1, 1}, "first");
  problems.add(InputError({source("x"), 0, 0}, "second"));
  EXPECT_EQ(problems.size(), 2u);
  try {
    problems.check();
    FAIL();
  } catch (const InputError& e) {
    EXPECT_THAT(e.what(), testing::AllOf(HasSubstr("first"), HasSubstr("second")));
    EXPECT_EQ(e.problems().size(), 2u);
  }
}

TEST(Check, TheNearestNameIsSuggested) {
  const std::vector<std::string> known = {"top_k", "slots", "nodes"};
  EXPECT_EQ(suggest("topk", known), ", did you mean `top_k`?");
  EXPECT_EQ(suggest("solts", known), ", did you mean `slots`?");
  EXPECT_EQ(suggest("banana", known), "; known: top_k, slots, nodes");
  EXPECT_EQ(suggest("x", {}), "; nothing can be set here");
  EXPECT_EQ(suggest(std::string(100'000, 'a'), known), "; known: top_k, slots, nodes");
  EXPECT_EQ(suggest("ab", {"abc", "abd"}), ", did you mean `abc`?") << "the first of equals";
}

TEST(Check, OffsetsBecomeLinesAndColumns) {
  const auto text = source("ab\ncd\n");
  const auto at = [&](std::size_t offset) {
    const Location l = locate(text, offset);
    return std::pair{l.line, l.column};
  };
  EXPECT_EQ(at(0), (std::pair{1, 1}));
  EXPECT_EQ(at(2), (std::pair{1, 3}));
  EXPECT_EQ(at(3), (std::pair{2, 1}));
  EXPECT_EQ(at(4), (std::pair{2, 2}));
  EXPECT_EQ(at(6), (std::pair{3, 1}));
  EXPECT_EQ(at(99), (std::pair{3, 1}));
}

TEST(Check, FilesThatCannotBeReadSaySo) {
  const std::string path = testing::TempDir() + "epsim_check_test.txt";
  const auto complaint = [](const std::string& file, std::size_t limit) {
    try {
      read_text(file, limit);
    } catch (const InputError& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  std::ofstream(path) << "hello";
  EXPECT_EQ(read_text(path)->text, "hello");
  EXPECT_EQ(complaint(path, 5), "");
  EXPECT_EQ(complaint(path, 4), path + ": error: is larger than the limit of 4 bytes");
  EXPECT_THAT(complaint(testing::TempDir(), 100), HasSubstr("is a folder"));
  std::remove(path.c_str());
  EXPECT_EQ(complaint(path, 5), path + ": error: no such file");
}

TEST(Check, OurOwnMistakesAreLogicErrors) {
  EXPECT_NO_THROW(ensure(true, "x"));
  EXPECT_THROW(ensure(false, "x"), std::logic_error);
}

}  // namespace
}  // namespace epsim
