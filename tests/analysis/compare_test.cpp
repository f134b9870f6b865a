#include "analysis/compare.h"

#include <cmath>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(Axis, SplitsAtTopLevelCommas) {
  EXPECT_THAT(parse_axis("capacity.factor=1, 1.25,2").values, ElementsAre("1", "1.25", "2"));
  EXPECT_EQ(parse_axis("capacity.factor=1,2").key, "capacity.factor");
  EXPECT_THAT(parse_axis("placement=contiguous,{eplb: {slots: 288, groups: [1, 2]}},'a,b'").values, ElementsAre("contiguous", "{eplb: {slots: 288, groups: [1, 2]}}", "'a,b'"));
}

TEST(Axis, RefusesWhatIsNoAxis) {
  for (const char* text : {"", "placement", "=a,b", "placement=", "placement=a,,b", "placement=a,", "placement={a", "placement=a}", "placement='a", "placement=a,b,a"})
    EXPECT_THROW(parse_axis(text), InputError) << text;
}

Comparison sample() {
  Comparison c{"ep64", "deepseek-v3", "64 ranks in 8 nodes of h800", 42, 2, 1, 1, {parse_axis("placement=contiguous,{eplb: {slots: 288}}"), parse_axis("capacity.factor=1,2")}, {}};
  for (const std::string& placement : c.axes[0].values)
    for (const std::string& factor : c.axes[1].values) {
      RunMetrics run;
      for (int layer : {3, 4}) {
        LayerMetrics m;
        m.layer = layer, m.dispatch_s = 1e-3, m.compute_s = 2e-3, m.combine_s = placement == "contiguous" ? 4e-3 : 1e-3, m.layer_s = m.dispatch_s + m.compute_s + m.combine_s;
        m.lower_bound_s = 3e-3, m.choices = 100, m.drops.choices = factor == "1" ? 5 : 0, m.rank_load.max_over_mean = layer, m.bottleneck = "a, \"b\"";
        run.add(m);
      }
      c.points.push_back(compared_point({placement, factor}, {run}));
    }
  return c;
}

TEST(Compare, SumsLayersAndComparesWithTheBest) {
  const Comparison c = sample();
  EXPECT_DOUBLE_EQ(c.points[0].total_s, 14e-3);
  EXPECT_DOUBLE_EQ(c.best().total_s, 8e-3);
  EXPECT_DOUBLE_EQ(c.points[0].rank_load_max_over_mean, 3.5);
  EXPECT_DOUBLE_EQ(c.points[0].drop_rate(), 0.05);
  std::ostringstream text;
  write_text(text, c);
  EXPECT_THAT(text.str(), HasSubstr("+75.0%"));
  EXPECT_THAT(text.str(), HasSubstr("5.00%"));
}

RunMetrics batches_of(std::initializer_list<double> seconds) {
  RunMetrics run;
  int batch = 4;
  for (const double s : seconds) {
    LayerMetrics m;
    m.batch = batch++, m.layer_s = s, m.relocation.moved_experts = 2, m.relocation.waited_s = 1;
    run.add(m);
  }
  return run;
}

TEST(Compare, PairsBatchesAndSeeds) {
  const ComparedPoint a = compared_point({"a"}, {batches_of({9, 10}), batches_of({11, 9})}), b = compared_point({"b"}, {batches_of({7, 9}), batches_of({8, 8})});
  EXPECT_THAT(a.samples_s, ElementsAre(10, 11, 12, 10));  // each waits a second for weights
  EXPECT_DOUBLE_EQ(a.total_s, 10.75);
  EXPECT_DOUBLE_EQ(a.moved_experts, 2);
  // Differences 2, 1, 3, 1 in parts of b's mean 9: mean 1.75, sample variance 11/12; t(3, 0.975) = 3.1824463.
  const Difference d = difference(a, b);
  EXPECT_DOUBLE_EQ(d.mean, 1.75 / 9);
  EXPECT_NEAR(d.half_width, 3.1824463052842629 * std::sqrt(11.0 / 12 / 4) / 9, 1e-12);
  EXPECT_TRUE(std::isinf(difference(compared_point({"a"}, {batches_of({1})}), compared_point({"b"}, {batches_of({2})})).half_width));
}

TEST(Compare, ForgetsSeedsThatAreTheSameDataAgain) {
  std::vector<std::vector<RunMetrics>> runs = {{batches_of({1, 2}), batches_of({1, 2}), batches_of({1, 2}), batches_of({1, 2})}, {batches_of({3, 3}), batches_of({3, 3}), batches_of({3, 4}), batches_of({3, 3})}};
  EXPECT_EQ(forget_repeated_seeds(runs), 2);  // the third differs at one point, and stays at both
  for (const std::vector<RunMetrics>& of_point : runs) ASSERT_EQ(of_point.size(), 2U);
  EXPECT_THAT(samples_of(runs[1][1]), ElementsAre(4, 5));
}

std::string text_of(const Comparison& c) {
  std::ostringstream text;
  write_text(text, c);
  return text.str();
}

TEST(Compare, LeavesOutWhatDiffersBetweenPoints) {
  Comparison c = sample();
  EXPECT_THAT(text_of(c), HasSubstr("ep64: deepseek-v3 on 64 ranks in 8 nodes of h800, 2 layers, seed 42\n"));
  c.machine = "8 nodes of h800", c.model.clear(), c.layers = 0, c.seed.reset();
  EXPECT_THAT(text_of(c), HasSubstr("ep64: 8 nodes of h800\n"));
  EXPECT_EQ(figure(c).subtitle, "8 nodes of h800");
  c.machine.clear();
  EXPECT_THAT(text_of(c), HasSubstr("ep64\n"));
  std::ostringstream json;
  write_json(json, c);
  const auto root = nlohmann::json::parse(json.str());
  for (const char* key : {"model", "machine", "seed", "layers"}) EXPECT_TRUE(root.at(key).is_null()) << key;
}

TEST(Compare, SaysThatDroppedWorkTakesNoTime) {
  Comparison c = sample();
  EXPECT_THAT(text_of(c), HasSubstr("points drop different shares of choices"));
  for (ComparedPoint& p : c.points) p.dropped_choices = 10;
  EXPECT_THAT(text_of(c), Not(HasSubstr("points drop")));
}

TEST(Compare, NamesColumnsForWhatTheyAreAndLeavesOutThoseOfNothing) {
  Comparison c = sample();
  EXPECT_THAT(text_of(c), HasSubstr("  optimum >="));
  EXPECT_THAT(text_of(c), Not(HasSubstr("cross-node")));
  c.points[1].cross_node_bytes = 5, c.points[1].moved_bytes = 5;
  EXPECT_THAT(text_of(c), HasSubstr("cross-node"));
  EXPECT_THAT(text_of(c), Not(HasSubstr("waited")));
  EXPECT_THAT(text_of(c), Not(HasSubstr("wait for weights")));
  c.points[1].waited_s = 5;
  EXPECT_THAT(text_of(c), HasSubstr("waited"));
  EXPECT_THAT(text_of(c), HasSubstr("seconds of the busiest links; gaps leave out the wait for weights\n"));
}

TEST(Compare, SaysHowManySlotsPointsFillWhereTheyDiffer) {
  const auto point = [](const char* name, std::vector<std::vector<int>> slots_of_layers) {
    RunMetrics run;
    for (const std::vector<int>& layer : slots_of_layers) {
      LayerMetrics m;
      for (const int slots : layer) m.memory.emplace_back().slots = slots;
      run.add(m);
    }
    return compared_point({name}, {run, run});
  };
  Comparison c{"x", "m", "r", 1, 2, 1, 2, {parse_axis("placement=a,b")}, {point("a", {{2, 2}, {3, 2}}), point("b", {{2, 2}, {3, 2}})}};
  EXPECT_DOUBLE_EQ(c.points[0].slots, 4.5);
  EXPECT_THAT(text_of(c), Not(HasSubstr("slots  ")));
  c.points[1] = point("b", {{4, 4}, {4, 4}});
  EXPECT_THAT(text_of(c), ::testing::ContainsRegex(" slots +weights .*\n +a .* 4\\.5 .*\n +b .* 8 "));
  std::ostringstream csv;
  write_csv(csv, c);
  EXPECT_THAT(csv.str(), HasSubstr(",slots,max_rank_weights_bytes,"));
}

TEST(Compare, CountsOneBatchAsOne) {
  Comparison c = sample();
  for (const double cost_s : {2.0, 1.0}) {
    BreakEven& pays = c.points[cost_s > 1 ? 0 : 1].break_even;
    pays.cost_s = cost_s, pays.gain_s = 1, pays.moves = 1;
  }
  EXPECT_THAT(text_of(c), HasSubstr(" 2 batches "));
  EXPECT_THAT(text_of(c), HasSubstr(" 1 batch "));
}

TEST(Compare, JsonAndCsvHoldTheSameGrid) {
  const Comparison c = sample();
  std::ostringstream json, csv;
  write_json(json, c);
  write_csv(csv, c);
  const auto root = nlohmann::json::parse(json.str());
  ASSERT_EQ(root["points"].size(), 4U);
  EXPECT_EQ(root["points"][2]["set"]["placement"], "{eplb: {slots: 288}}");
  EXPECT_EQ(root["points"][0]["dropped_choices"], 10);
  EXPECT_THAT(csv.str(), HasSubstr("placement,capacity.factor,total_s,relative_to_best,relative_to_best_half_width,"));
  EXPECT_THAT(csv.str(), HasSubstr("{eplb: {slots: 288}},1,0.008,1,,"));
  EXPECT_THAT(csv.str(), HasSubstr(",\"a, \"\"b\"\"\"\r\n"));
}

TEST(Compare, FigureGroupsByTheFirstAxis) {
  const LayerTimeFigure f = figure(sample());
  ASSERT_EQ(f.groups.size(), 2U);
  EXPECT_EQ(f.groups[1].label, "eplb slots 288");
  ASSERT_EQ(f.groups[0].bars.size(), 2U);
  EXPECT_EQ(f.groups[0].bars[1].label, "2");
  EXPECT_EQ(f.group_title, "placement");
  EXPECT_EQ(f.bar_title, "capacity.factor");
  EXPECT_DOUBLE_EQ(f.groups[0].bars[0].drop_rate, 0.05);
  EXPECT_EQ(f.groups[0].bars[0].half_width_s, 0);  // of one sample there is none
}

TEST(Compare, FigureHasTheIntervalsOfTheTable) {
  Comparison c{"x", "m", "r", 1, 1, 3, 1, {parse_axis("placement=a,b")}, {compared_point({"a"}, {batches_of({2, 3, 4})}), compared_point({"b"}, {batches_of({2.5, 3.6, 4.4})})}};
  const LayerTimeFigure f = figure(c);
  EXPECT_EQ(f.groups[0].bars[0].half_width_s, 0);
  EXPECT_DOUBLE_EQ(f.groups[1].bars[0].half_width_s, difference(c.points[1], c.points[0]).half_width * c.points[0].total_s);
  EXPECT_GT(f.groups[1].bars[0].half_width_s, 0);
  EXPECT_EQ(f.interval, "95 % interval of the difference to the best");
  EXPECT_EQ(f.subtitle, "m on r, means of 3 batches, seed 1");
  c.seeds = 5, c.seed = 42;
  EXPECT_EQ(figure(c).subtitle, "m on r, means of 3 batches, 5 seeds from 42");
}

}  // namespace
}  // namespace epsim
