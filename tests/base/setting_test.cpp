#include "base/setting.h"

#include <gmock/gmock.h>

namespace epsim {
namespace {

using testing::HasSubstr;

const PartKeys kParts = {{"placement", "contiguous"}, {"capacity", "dropless"}};

Setting parse(std::string text) { return parse_yaml(std::make_shared<SourceText>(SourceText{"f.yaml", std::move(text)})); }
std::string complaint(const std::string& text) {
  try {
    parse(text);
  } catch (const InputError& e) {
    return e.what();
  }
  return {};
}
std::string overridden(const std::string& text, const std::string& assignment) {
  Setting s = parse(text);
  apply_override(s, assignment, kParts);
  return to_yaml(s);
}
std::string laid(const std::string& base, const std::string& over) {
  Setting s = parse(base);
  overlay(s, parse(over), kParts);
  return to_yaml(s);
}

TEST(Setting, KnowsWhereEveryValueStands) {
  const Setting s = parse("seed: 42\nplacement:\n  eplb: {slots: 288}\n");
  ASSERT_TRUE(s.is_map());
  EXPECT_EQ(s.find("seed")->text, "42");
  EXPECT_EQ(s.find("seed")->at.line, 1);
  EXPECT_EQ(s.find("seed")->at.column, 7);
  const Setting* slots = s.find("placement")->find("eplb")->find("slots");
  ASSERT_NE(slots, nullptr);
  EXPECT_EQ(slots->at.line, 3);
  EXPECT_EQ(slots->at.column, 17);
  EXPECT_EQ(s.find("nothing"), nullptr);
}

TEST(Setting, BrokenYamlSaysWhere) {
  EXPECT_THAT(complaint("a: 1\na: 2\n"), HasSubstr("f.yaml:2:1: error: the key `a` is given twice"));
  EXPECT_THAT(complaint("a: [1, 2\n"), HasSubstr("f.yaml:"));
  EXPECT_THAT(complaint("a: &x 1\nb: *x\n"), HasSubstr("f.yaml:2:4: error: aliases"));
  EXPECT_THAT(complaint("[a, b]: 1\n"), HasSubstr("expected a plain key"));
  EXPECT_THAT(complaint("a: 1\n---\nb: 2\n"), HasSubstr("expected one YAML document"));
  EXPECT_THAT(complaint(std::string(33, '[') + std::string(33, ']')), HasSubstr("nested deeper than 32 levels"));
  EXPECT_EQ(complaint(std::string(32, '[') + std::string(32, ']')), "");
  EXPECT_THAT(complaint(std::string(1'000'000, '[')), HasSubstr("too many nested brackets"));
  std::string many = "[";
  for (int i = 0; i < 100'001; ++i) many += "1,";
  EXPECT_THAT(complaint(many + "]"), HasSubstr("more than 100000 values"));
  EXPECT_EQ(parse("").kind, Setting::Kind::null);
}

TEST(Setting, WritesWhatReadsBackAsTheSame) {
  for (const char* text : {"{a: 1, b: [x, 'y: z', ~], c: {d: {}}}", "[]", "'it''s'", "'~'", "'- a'", "''", "a b", "{x: 'null', y: '{'}", "'...'", "'---'", "-1",
                           "\"a\\n\\tb\\\\\"", "{'a: b': 1, '~': 2}"}) {
    const Setting s = parse(text);
    const Setting again = parse(to_yaml(s));
    EXPECT_EQ(again.kind, s.kind) << text;
    EXPECT_EQ(again.text, s.text) << text;
    EXPECT_EQ(to_yaml(again), to_yaml(s)) << text;
  }
  EXPECT_EQ(to_yaml(parse("a: 1\nb:\n  - x\n  - {c: d}\n")), "{a: 1, b: [x, {c: d}]}");
}

TEST(Setting, AnOverrideReplacesAPartOrSetsItsSetting) {
  EXPECT_EQ(overridden("{placement: {eplb: {slots: 288}}}", "placement=random"), "{placement: random}");
  EXPECT_EQ(overridden("{placement: {eplb: {slots: 288}}}", "placement.slots=300"), "{placement: {eplb: {slots: 300}}}");
  EXPECT_EQ(overridden("{placement: eplb}", "placement.slots=300"), "{placement: {eplb: {slots: 300}}}");
  EXPECT_EQ(overridden("{seed: 1}", "placement.slots=300"), "{seed: 1, placement: {contiguous: {slots: 300}}}");
  EXPECT_EQ(overridden("{seed: 1}", "seed=2"), "{seed: 2}");
  EXPECT_EQ(overridden("{}", "precision.dispatch=fp8"), "{precision: {dispatch: fp8}}");
  EXPECT_EQ(overridden("{}", "layers=[1, 4-6]"), "{layers: [1, 4-6]}");
  for (const char* bad : {"seed", "=1", ".a=1", "a..b=1", "a=[1"}) EXPECT_THROW(overridden("{}", bad), InputError) << bad;
  EXPECT_THROW(overridden("{seed: 1}", "seed.x=2"), InputError);
  EXPECT_THROW(overridden("{placement: {eplb: {slots: 288}}}", "placement.slots.x=2"), InputError);
}

TEST(Setting, AnOverrideThatLeavesNothingOfAnEarlierOneIsRefused) {
  const auto complaint_of = [](const std::string& first, const std::string& second) -> std::string {
    Setting s = parse("{placement: eplb, precision: {dispatch: bf16}}");
    apply_override(s, first, kParts);
    try {
      apply_override(s, second, kParts);
    } catch (const InputError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_THAT(complaint_of("placement.slots=17", "placement=contiguous"), HasSubstr("--set:1:1: error: has no effect: `placement` is set after it"));
  EXPECT_THAT(complaint_of("placement.slots=17", "placement=contiguous"), HasSubstr("placement.slots=17"));
  EXPECT_THAT(complaint_of("placement.slots=17", "placement.slots=18"), HasSubstr("`placement.slots` is set after it"));
  EXPECT_THAT(complaint_of("placement=eplb", "placement=random"), HasSubstr("`placement` is set after it"));
  for (const auto& [first, second] : {std::pair("placement=contiguous", "placement.slots=17"), {"placement={eplb: {slots: 17}}", "placement.slots=18"}, {"precision.dispatch=fp8", "precision.combine=fp8"},
                                      {"precision={dispatch: fp8, combine: fp8}", "precision.dispatch=bf16"}, {"seed=1", "seeds=2"}})
    EXPECT_EQ(complaint_of(first, second), "") << first << " " << second;
}

TEST(Setting, ABracketThatIsNeverClosedIsNamed) {
  EXPECT_THAT(complaint("{single_switch: {ranks: 8}"), HasSubstr("f.yaml:1:1: error: this bracket is never closed"));
  EXPECT_THAT(complaint("a: 1\nb: [1, '}', \"]\" # ]\n"), HasSubstr("f.yaml:2:4: error: this bracket is never closed"));
  EXPECT_THAT(complaint("a: {b: 'it''s ['}\na: 2\n"), HasSubstr("f.yaml:2:1: error: the key `a` is given twice"));
}

TEST(Setting, AnOverridesLocationPointsIntoWhatWasTyped) {
  Setting s = parse("{}");
  apply_override(s, "placement.slots=many", kParts);
  const Setting* slots = s.find("placement")->find("contiguous")->find("slots");
  EXPECT_EQ(slots->at.source->name, "--set");
  EXPECT_EQ(slots->at.source->text, "placement.slots=many");
  EXPECT_EQ(slots->at.column, 17);
}

TEST(Setting, OverlaysMergeMapsAndReplaceParts) {
  EXPECT_EQ(laid("{a: 1, b: {c: 2, d: 3}}", "{b: {c: 4}, e: 5}"), "{a: 1, b: {c: 4, d: 3}, e: 5}");
  EXPECT_EQ(laid("{a: [1, 2]}", "{a: [3]}"), "{a: [3]}");
  EXPECT_EQ(laid("{placement: {eplb: {slots: 288}}}", "{placement: {eplb: {groups: 8}}}"), "{placement: {eplb: {slots: 288, groups: 8}}}");
  EXPECT_EQ(laid("{placement: {eplb: {slots: 288}}}", "{placement: {random: {seed: 1}}}"), "{placement: {random: {seed: 1}}}");
  EXPECT_EQ(laid("{placement: {eplb: {slots: 288}}}", "{placement: eplb}"), "{placement: {eplb: {slots: 288}}}");
  EXPECT_EQ(laid("{placement: {eplb: {slots: 288}}}", "{placement: random}"), "{placement: random}");
}

TEST(Setting, APartIsANameOrANameWithSettings) {
  Diagnostics problems;
  EXPECT_EQ(part_choice(parse("eplb"), problems).name, "eplb");
  const PartChoice choice = part_choice(parse("{eplb: {slots: 3}}"), problems);
  EXPECT_EQ(choice.name, "eplb");
  EXPECT_EQ(choice.settings.find("slots")->text, "3");
  EXPECT_TRUE(part_choice(parse("{eplb: ~}"), problems).settings.is_map());
  EXPECT_EQ(problems.size(), 0u);
  part_choice(parse("{eplb: {}, random: {}}"), problems);
  part_choice(parse("[eplb]"), problems);
  part_choice(parse("{eplb: 3}"), problems);
  EXPECT_EQ(problems.size(), 3u);
}

}  // namespace
}  // namespace epsim
