// Placements in the forms that serving frameworks load; those that epsim reads too come back the same.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "analysis/export/deployment.h"
#include "base/npz.h"
#include "tests/support/part_from_yaml.h"
#include "workloads/import/formats.h"
#include "workloads/import/slot_table.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::shared_ptr<const SourceText> text(const std::string& bytes) { return std::make_shared<SourceText>(SourceText{"file", bytes}); }

/// Layers 2 and 5: three experts in four slots on two ranks.
Deployment two_layers() {
  return {{2, 5}, {Placement::from_experts({0, 1, 2, 0}, {0, 2, 4}, 3), Placement::from_experts({2, 1, 1, 0}, {0, 2, 4}, 3)}, 3};
}

TEST(Deployment, SglangHasARowForEveryLayer) {
  const auto map = nlohmann::json::parse(to_sglang_location(two_layers(), {}))["physical_to_logical_map"];
  ASSERT_EQ(map.size(), 6U);
  EXPECT_EQ(map[2], (std::vector<int>{0, 1, 2, 0}));
  EXPECT_EQ(map[5], (std::vector<int>{2, 1, 1, 0}));
  for (const int dense : {0, 1, 3, 4}) EXPECT_EQ(map[static_cast<std::size_t>(dense)], (std::vector<int>{0, 1, 2, 0})) << "slot s holds expert s mod E";
  EXPECT_THAT(read_slot_table(text(to_sglang_location(two_layers(), {})), 2).slots.expert_of_slot[5], ElementsAre(2, 1, 1, 0));
}

TEST(Deployment, ComesBackFromAscendAndTensorrt) {
  const Recording ascend = read_ascend_expert_map({text(to_ascend_expert_map(two_layers(), {}))}, {});
  const Recording tensorrt = read_tensorrt_balancer({text(to_tensorrt_balancer(two_layers(), {}))}, {2});
  for (const Recording& r : {ascend, tensorrt}) {
    const auto& slots = std::get<RecordedSlots>(r.data);
    EXPECT_THAT(slots.expert_of_slot, ElementsAre(ElementsAre(0, 1, 2, 0), ElementsAre(2, 1, 1, 0)));
    EXPECT_THAT(slots.first_slot, ElementsAre(ElementsAre(0, 2, 4), ElementsAre(0, 2, 4)));
  }
  EXPECT_THAT(tensorrt.layers, ElementsAre(2, 5));
}

TEST(Deployment, EplbHasItsThreeArrays) {
  const auto arrays = read_npz(text(to_eplb_arrays(two_layers(), {})));
  EXPECT_THAT(arrays.at("phy2log").integers, ElementsAre(0, 1, 2, 0, 2, 1, 1, 0));
  EXPECT_THAT(arrays.at("log2phy").shape, ElementsAre(2, 3, 2));
  EXPECT_THAT(arrays.at("log2phy").integers, ElementsAre(0, 3, 1, -1, 2, -1, 3, -1, 1, 2, 0, -1));
  EXPECT_THAT(arrays.at("logcnt").integers, ElementsAre(2, 1, 1, 1, 2, 1));
  EXPECT_THAT(arrays.at("layers").integers, ElementsAre(2, 5));
}

TEST(Deployment, SaysWhatAFormCannotCarry) {
  const Location at{std::make_shared<SourceText>(SourceText{"--export", "x"}), 1, 1};
  Deployment uneven = two_layers();
  uneven.placements[1] = Placement::from_experts({2, 1, 1, 0}, {0, 3, 4}, 3);
  Deployment growing = two_layers();
  growing.placements[1] = Placement::from_experts({2, 1, 1, 0, 0, 0}, {0, 3, 6}, 3);
  const Deployment odd{{0}, {Placement::from_experts({0, 1, 2}, {0, 2, 3}, 3)}, 3};
  for (const DeploymentFormat& f : deployment_formats()) {
    const auto said = [&](const Deployment& d) { return testing::input_error([&] { f.write(d, at); }); };
    EXPECT_THAT(said(uneven), HasSubstr("equally many slots on every rank: in layer 5 rank 0 has 3 of 4 on 2 ranks; this policy fills ranks unevenly")) << f.name;
    EXPECT_THAT(said(growing), HasSubstr("equally many slots in every layer: layer 2 has 4, layer 5 has 6")) << f.name;
    EXPECT_THAT(said(odd), HasSubstr("--export:1:1: error: ")) << f.name;
    EXPECT_THAT(said(odd), HasSubstr("rank 0 has 2 of 3 on 2 ranks; 2 or 4 slots divide")) << f.name;
  }
}

}  // namespace
}  // namespace epsim
