// What is checked of a recording, whatever program it is from, and the forms it is written in.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/npz.h"
#include "tests/support/part_from_yaml.h"
#include "workloads/import/load_dump.h"
#include "workloads/import/ours.h"
#include "workloads/import/settle.h"
#include "workloads/import/slot_table.h"

namespace epsim {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const Location kFile{std::make_shared<SourceText>(SourceText{"dump", ""}), 0, 0};

std::shared_ptr<const SourceText> text(const std::string& bytes) { return std::make_shared<SourceText>(SourceText{"ours", bytes}); }

Recording recorded_choices(std::int64_t rows, int top_k, const std::vector<std::int32_t>& experts) {
  Recording r;
  r.rows = rows;
  r.data = RecordedChoices{static_cast<std::int64_t>(experts.size()) / rows / top_k, top_k, experts, {}};
  return r;
}

Recording recorded_counts(const std::vector<std::vector<std::vector<std::int64_t>>>& steps) {
  Recording r;
  RecordedCounts c;
  for (const auto& step : steps) {
    Matrix<std::int64_t>& m = c.steps.emplace_back(static_cast<std::int64_t>(step.size()), static_cast<std::int64_t>(step[0].size()));
    for (std::size_t l = 0; l < step.size(); ++l) std::ranges::copy(step[l], m.row(static_cast<std::int64_t>(l)).begin());
  }
  r.rows = c.steps[0].rows, r.experts = static_cast<int>(c.steps[0].columns);
  r.data = std::move(c);
  return r;
}

Model model(int experts, int top_k, std::vector<int> moe_layers) {
  Model m;
  m.num_experts = experts, m.top_k = top_k, m.moe_layers = std::move(moe_layers);
  return m;
}

std::string refusal(Recording r, const SettleOptions& options = {}) {
  return testing::input_error([&] { settle(r, kFile, options); });
}

TEST(Settle, LeavesOutPaddingAndRefusesWhatCannotBe) {
  Recording r = recorded_choices(1, 2, {0, 1, -1, -1, 2, -1, 1, 2});
  const ImportReport report = settle(r, kFile, {});
  EXPECT_THAT(std::get<RecordedChoices>(r.data).experts, ElementsAre(0, 1, 1, 2));
  EXPECT_THAT(report.facts, Contains(HasSubstr("1 tokens of padding")));
  EXPECT_THAT(report.warnings, ElementsAre(HasSubstr("1 tokens have no choice in some layer")));
  EXPECT_THAT(refusal(recorded_choices(1, 2, {0, 1, 2, 2})), HasSubstr("dump: error: token 1, layer 0, choice 1: expert 2 is there twice; leave such tokens out with --drop-bad-tokens"));
  const Model eight = model(8, 2, {3});
  EXPECT_THAT(refusal(recorded_choices(1, 2, {0, 8}), {&eight, 0, false}), HasSubstr("token 0, layer 0, choice 1: expert 8 is not one of 8"));
  EXPECT_THAT(refusal(recorded_choices(1, 1, {0}), {&eight, 0, false}), HasSubstr("tokens have 1 choices, the model's top_k is 2"));
  EXPECT_THAT(refusal(recorded_choices(2, 2, {0, 1, 2, 3}), {&eight, 0, false}), HasSubstr("has 2 layers, the model has 1 MoE layers"));
  Recording bad = recorded_choices(1, 2, {0, 9, 5, 5, 6, 7});
  const ImportReport dropped = settle(bad, kFile, {&eight, 0, true});
  EXPECT_THAT(std::get<RecordedChoices>(bad.data).experts, ElementsAre(6, 7));
  EXPECT_THAT(dropped.warnings, ElementsAre(HasSubstr("2 tokens with experts out of range or twice")));
  EXPECT_THAT(bad.layers, ElementsAre(3));
}

TEST(Settle, SeesTokensThatRepeat) {
  std::vector<std::int32_t> ids;
  for (int t = 0; t < 10; ++t) ids.push_back(5);
  for (int t = 0; t < 200; ++t) ids.push_back(t % 7);
  Recording r = recorded_choices(1, 1, ids);
  EXPECT_THAT(settle(r, kFile, {}).warnings, ElementsAre(HasSubstr("the first 10 tokens choose alike")));
  Recording rest = recorded_choices(1, 1, ids);
  EXPECT_THAT(settle(rest, kFile, {nullptr, 10, false}).warnings, IsEmpty());
  EXPECT_EQ(std::get<RecordedChoices>(rest.data).tokens, 200);
}

TEST(Settle, SeesAWarmUp) {
  const std::vector<std::vector<std::int64_t>> usual = {{100, 110, 90, 100}}, none = {{0, 0, 0, 0}}, flood = {{1000, 1000, 1000, 1000}}, odd = {{400, 0, 0, 0}};
  for (const auto& strange : {none, flood, odd}) {
    Recording r = recorded_counts({strange, strange, usual, usual, usual, usual, usual, usual});
    EXPECT_THAT(settle(r, kFile, {}).warnings, ElementsAre(HasSubstr("the first 2 of 8 steps differ wildly from the rest: a warm-up? --skip 2")));
    Recording skipped = recorded_counts({strange, strange, usual, usual, usual, usual, usual, usual});
    EXPECT_THAT(settle(skipped, kFile, {nullptr, 2, false}).warnings, IsEmpty());
    EXPECT_THAT(total_counts(skipped).cells, ElementsAre(600, 660, 540, 600));
  }
  Recording even = recorded_counts({usual, usual, usual, usual});
  EXPECT_THAT(settle(even, kFile, {}).warnings, IsEmpty());
  EXPECT_THAT(refusal(recorded_counts({usual}), {nullptr, 1, false}), HasSubstr("has 1 steps: none is left without the first 1"));
}

TEST(Settle, SeesLayersThatAreEmptyAlikeOrDisagree) {
  Recording dense = recorded_counts({{{0, 0}, {3, 5}, {6, 2}}});
  const ImportReport report = settle(dense, kFile, {});
  EXPECT_THAT(dense.layers, ElementsAre(1, 2));
  EXPECT_THAT(report.warnings, ElementsAre(HasSubstr("layers 0 have no counts and are left out")));
  Recording twins = recorded_counts({{{30, 50}, {30, 50}, {20, 60}}});
  EXPECT_THAT(settle(twins, kFile, {}).warnings, ElementsAre(HasSubstr("layers 0 and 1 have identical counts")));
  Recording sums = recorded_counts({{{30, 50}, {30, 51}}});
  const Model three = model(2, 3, {4, 5});
  EXPECT_THAT(settle(sums, kFile, {&three, 0, false}).warnings, ElementsAre(HasSubstr("80 in layer 4, 81 in layer 5"), HasSubstr("80 choices in layer 4 are no multiple of the model's top_k 3")));
  EXPECT_THAT(refusal(recorded_counts({{{0, 0}}})), HasSubstr("all counts are 0"));
  EXPECT_THAT(refusal(recorded_counts({{{1, 2, 3}}}), {&three, 0, false}), HasSubstr("counts 3 experts, the model has 2"));
}

TEST(Settle, WidensCountsOfUnknownWidth) {
  Recording r = recorded_counts({{{1, 2}}});
  r.experts = 0;
  const Model four = model(4, 1, {0});
  settle(r, kFile, {&four, 0, false});
  EXPECT_THAT(total_counts(r).cells, ElementsAre(1, 2, 0, 0));
}

TEST(Settle, ChecksPlacements) {
  Recording r;
  r.rows = 1, r.data = RecordedSlots{{{0, 0, 1, 2}}, {{0, 2, 4}}};
  EXPECT_THAT(settle(r, kFile, {}).warnings, ElementsAre(HasSubstr("they are 0 to 0 here; --model gives"), HasSubstr("1 slots hold a second replica")));
  Recording missing;
  missing.rows = 1, missing.data = RecordedSlots{{{0, 2}}, {{0, 1, 2}}};
  EXPECT_THAT(refusal(missing), HasSubstr("layer 0: expert 1 has no slot"));
}

TEST(Ours, IsWhatOurReadersRead) {
  Recording r = recorded_choices(2, 1, {0, 1, 2, 1, 0, 1});
  r.layers = {3, 7};
  settle(r, kFile, {});
  const auto arrays = read_npz(text(to_trace(r)));
  EXPECT_THAT(arrays.at("expert_ids").shape, ElementsAre(3, 2, 1));
  EXPECT_THAT(arrays.at("expert_ids").integers, ElementsAre(0, 1, 2, 1, 0, 1));
  EXPECT_THAT(arrays.at("layers").integers, ElementsAre(3, 7));
  const LoadDump loads = read_load_dump(text(to_loads(r)));
  EXPECT_THAT(loads.logical_count, ElementsAre(ElementsAre(2, 0, 1), ElementsAre(0, 3, 0)));
  EXPECT_THAT(loads.layers, ElementsAre(3, 7));

  Recording placed;
  placed.rows = 2, placed.data = RecordedSlots{{{0, 1, 1}, {1, 0, 0}}, {{0, 2, 3}, {0, 1, 3}}};
  const SlotTable table = read_slot_table(text(to_placement(placed)), 99);
  EXPECT_THAT(table.slots.expert_of_slot, ElementsAre(ElementsAre(0, 1, 1), ElementsAre(1, 0, 0)));
  EXPECT_THAT(table.slots.first_slot, ElementsAre(ElementsAre(0, 2, 3), ElementsAre(0, 1, 3)));

  Recording traffic;
  RecordedTraffic t;
  t.exchanges.assign(2, Matrix<std::int64_t>(2, 2));
  t.exchanges[0].cells = {0, 1, 2, 0}, t.exchanges[1].cells = {0, 10, 20, 0};
  traffic.data = t;
  EXPECT_EQ(to_matrix_csv(traffic, {}), "0,11\n22,0\n");
  EXPECT_EQ(to_matrix_csv(traffic, 1), "0,10\n20,0\n");
}

TEST(SlotTable, SaysWhereItIsWrong) {
  const auto said = [](const std::string& json, int ranks = 2) { return testing::input_error([&] { read_slot_table(text(json), ranks); }); };
  EXPECT_EQ(said(R"({"physical_to_logical_map": [[0, 1]]})"), "");
  EXPECT_THAT(said(R"({"physical_to_logical_map": [[0, 1, 2]]})"), HasSubstr("3 slots do not divide by 2 ranks"));
  EXPECT_THAT(said(R"({"physical_to_logical": [[0, 1]], "first_slot": [[0, 2, 1]]})"), HasSubstr("`first_slot` must rise from 0 to the 2 slots"));
  EXPECT_THAT(said(R"({"physical_to_logical": [[0, 1]], "first_slot": []})"), HasSubstr("`first_slot` has 0 layers"));
  EXPECT_THAT(said(R"({"physical_to_logical": [[0, 1.5]]})"), HasSubstr("ours:1:30: error: `physical_to_logical`: expected a whole number"));
  EXPECT_THAT(said(R"({"physical_to_logical": [[0, 1]], "layers": [1, 2]})"), HasSubstr("`layers` names 2 layers"));
}

}  // namespace
}  // namespace epsim
