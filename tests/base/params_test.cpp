#include "base/params.h"

#include <gmock/gmock.h>

namespace epsim {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// Settings with what is wrong about them.
struct Rig {
  explicit Rig(std::string text)
      : settings(parse_yaml(std::make_shared<SourceText>(SourceText{"dir/f.yaml", std::move(text)}))), params(settings, "part `x`", problems) {}
  std::string complaint() {
    try {
      problems.check();
    } catch (const InputError& e) {
      return e.what();
    }
    return {};
  }
  Setting settings;
  Diagnostics problems;
  Params params;
};

TEST(Params, ReadsEveryType) {
  Rig rig("{i: 3, n: 1.5, f: true, t: hi, c: b, p: a/b.csv, d: 2us, s: 1KiB, w: 8Gbps, r: 5/4, l: '3-5,9'}");
  Params& p = rig.params;
  EXPECT_EQ(p.integer("i", "help"), 3);
  EXPECT_EQ(p.number("n", "help"), 1.5);
  EXPECT_TRUE(p.flag("f", "help"));
  EXPECT_EQ(p.text("t", "help"), "hi");
  EXPECT_EQ(p.choice("c", "help", {"a", "b"}), "b");
  EXPECT_EQ(p.path("p", "help"), "dir/a/b.csv");
  EXPECT_EQ(p.time("d", "help").ps, 2'000'000);
  EXPECT_EQ(p.bytes("s", "help"), 1024);
  EXPECT_EQ(p.bandwidth("w", "help"), 1e9);
  EXPECT_EQ(p.rational("r", "help"), (Rational{5, 4}));
  EXPECT_THAT(*p.ranges("l", "help"), ElementsAre(3, 4, 5, 9));
  p.finish();
  EXPECT_TRUE(p.usable());
  EXPECT_EQ(rig.complaint(), "");
}

TEST(Params, FallsBackWhereAKeyIsAbsent) {
  Rig rig("{}");
  EXPECT_EQ(rig.params.integer("i", "help", 4), 4);
  EXPECT_EQ(rig.params.bandwidth("w", "help", 2e9), 2e9);
  EXPECT_FALSE(rig.params.ranges("l", "help"));
  EXPECT_TRUE(rig.params.usable());
}

TEST(Params, FindsEveryProblemInOnePass) {  // I11
  Rig rig("{i: three, n: 7, f: maybe, c: bb, w: 0GB/s, r: 0, l: [1, x], ii: 3}");
  Params& p = rig.params;
  p.integer("i", "help"), p.number("n", "help", {}, 0, 5), p.flag("f", "help"), p.choice("c", "help", {"a", "b"}), p.bandwidth("w", "help"),
      p.rational("r", "help");
  p.ranges("l", "help"), p.time("needed", "how long");
  EXPECT_FALSE(p.usable());
  p.finish();
  EXPECT_EQ(rig.problems.size(), 9u);
  for (const char* expected :
       {"1:5: error: `i` must be an integer of at least 0, got `three`", "`n` must be a number from 0 to 5, got `7`", "`f` must be true or false, got `maybe`",
        "`c` has no value `bb`, did you mean `b`?", "`w` must be a rate above 0", "`r` must be a fraction above 0", "`l` must be numbers or ranges",
        "part `x` needs `needed` (a time with its unit, such as 2us): how long", "part `x` has no setting `ii`, did you mean `i`?"})
    EXPECT_THAT(rig.complaint(), HasSubstr(expected));
}

TEST(Params, RangesRefuseWhatIsNoRange) {
  for (const char* bad : {"{l: 5-3}", "{l: '1,,2'}", "{l: -1}", "{l: {a: 1}}", "{l: 0-999999999}", "{l: [[1]]}"}) {
    Rig rig(bad);
    rig.params.ranges("l", "help");
    EXPECT_EQ(rig.problems.size(), 1u) << bad;
  }
}

TEST(Params, ListingRecordsWhatIsRead) {
  Params p;
  EXPECT_TRUE(p.listing());
  EXPECT_FALSE(p.usable());
  p.integer("i", "how many");
  p.integer("i", "how many");
  p.time("d", "how long", Time{2'000'000});
  p.bandwidth("w", "how fast", 1e9, "the device's rate");
  p.error("i", "is not said to anybody");
  p.finish();
  ASSERT_EQ(p.docs().size(), 3u);
  EXPECT_EQ(p.docs()[0].key, "i");
  EXPECT_EQ(p.docs()[0].fallback, "");
  EXPECT_EQ(p.docs()[1].fallback, "2 us");
  EXPECT_EQ(p.docs()[2].fallback, "the device's rate");
}

TEST(Params, PathsAreTakenFromTheFolderOfTheFileThatNamesThem) {
  const auto from = [](const char* name) { return Location{std::make_shared<SourceText>(SourceText{name, ""}), 1, 1}; };
  EXPECT_EQ(resolve_path("a.csv", from("dir/f.yaml")), "dir/a.csv");
  EXPECT_EQ(resolve_path("../a.csv", from("dir/f.yaml")), "a.csv");
  EXPECT_EQ(resolve_path("/a.csv", from("dir/f.yaml")), "/a.csv");
  EXPECT_EQ(resolve_path("a.csv", from("--set")), "a.csv");
  EXPECT_EQ(resolve_path("a.csv", {}), "a.csv");
}

}  // namespace
}  // namespace epsim
