// The placement of a file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "policies/placement.h"
#include "tests/support/part_from_yaml.h"
#include "tests/support/program.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<Placement> place(const std::string& json, const std::vector<int>& layers) {
  const testing::Workspace space("epsim_given");
  Shape shape;
  shape.experts = 3, shape.top_k = 1, shape.ranks = 2, shape.nodes = 1;
  const PlacementPolicy policy = testing::part_from_yaml(builtin_placements(), "given: {file: '" + space.write("p.json", json) + "'}", static_cast<const Shape*>(&shape));
  Problem p;
  p.experts = 3, p.ranks = 2, p.nodes = 1, p.layers = layers;
  p.counts.assign(layers.size(), Matrix<std::int64_t>(1, 3));
  return policy.place(p);
}

std::string refusal(const std::string& json, const std::vector<int>& layers = {0}) {
  return testing::input_error([&] { place(json, layers); });
}

TEST(Given, PlaysBackTheRowOfEachLayer) {
  const std::vector<Placement> placed = place(R"({"layers": [9, 4], "physical_to_logical": [[0, 1, 2], [2, 1, 0]], "first_slot": [[0, 1, 3], [0, 3, 3]]})", {4, 9});
  EXPECT_THAT(placed[0].expert_of_slot, ElementsAre(2, 1, 0));
  EXPECT_THAT(placed[0].first_slot, ElementsAre(0, 3, 3));
  EXPECT_THAT(placed[1].first_slot, ElementsAre(0, 1, 3));
  placed[1].check(3);
  EXPECT_THAT(place(R"({"physical_to_logical_map": [[0, 1, 2, 0], [2, 1, 0, 0]]})", {1})[0].expert_of_slot, ElementsAre(2, 1, 0, 0)) << "by the layer's index, as SGLang counts";
  EXPECT_EQ(place(R"({"physical_to_logical": [[0, 1, 2, 0]]})", {3, 7}).size(), 2U) << "one row is for all layers";
}

TEST(Given, SaysWhatDoesNotFit) {
  EXPECT_THAT(refusal(R"({"physical_to_logical": [[0, 1, 3, 2]]})"), HasSubstr("row 0 places expert 3, there are 3 experts"));
  EXPECT_THAT(refusal(R"({"physical_to_logical": [[0, 1]]})"), HasSubstr("row 0 has no slot for expert 2"));
  EXPECT_THAT(refusal(R"({"physical_to_logical": [[0, 1, 2]], "first_slot": [[0, 1, 2, 3]]})"), HasSubstr("row 0 is for 3 ranks, there are 2"));
  EXPECT_THAT(refusal(R"({"physical_to_logical": [[0, 1, 2, "x"]]})"), HasSubstr("p.json:1:"));
  EXPECT_THAT(refusal(R"({"layers": [1, 2], "physical_to_logical": [[0, 1, 2, 2], [0, 1, 2, 2]]})", {3}), HasSubstr("has no placement of layer 3"));
}

}  // namespace
}  // namespace epsim
