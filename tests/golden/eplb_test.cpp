// Results of DeepSeek's own EPLB program on random loads, where they are at hand: equal to every index.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "policies/placement.h"
#include "tests/support/part_from_yaml.h"
#include "tests/support/test_data.h"

namespace epsim {
namespace {

TEST(EplbGolden, EqualsTheOriginalToEveryIndex) {
  const std::filesystem::path folder = std::filesystem::path(test_data()) / "eplb";
  if (test_data().empty() || !std::filesystem::is_directory(folder))
    GTEST_SKIP() << "no EPLB vectors: set EPSIM_TEST_DATA to a folder that has eplb/*.json";
  int cases = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".json") continue;
    SCOPED_TRACE(entry.path().filename().string());
    std::ifstream in(entry.path());
    const nlohmann::json c = nlohmann::json::parse(in);
    Problem p;
    p.experts = c.at("experts"), p.ranks = c.at("gpus"), p.nodes = c.at("nodes"), p.expert_groups = c.at("groups");
    for (const nlohmann::json& row : c.at("weight")) {
      p.layers.push_back(static_cast<int>(p.layers.size()));
      p.counts.emplace_back(1, p.experts).cells = row.get<std::vector<std::int64_t>>();
    }
    const Shape shape{.experts = p.experts, .top_k = 1, .ranks = p.ranks, .nodes = p.nodes, .expert_groups = p.expert_groups};
    const std::string yaml = "eplb: {slots: " + c.at("replicas").dump() + "}";
    const std::vector<Placement> placements = testing::part_from_yaml(builtin_placements(), yaml, &shape).place(p);
    ASSERT_EQ(placements.size(), p.counts.size());
    for (std::size_t l = 0; l < placements.size(); ++l) {
      placements[l].check(p.experts);
      EXPECT_EQ(placements[l].expert_of_slot, c.at("physical_to_logical").at(l).get<std::vector<std::uint16_t>>());
      for (std::size_t e = 0; e < placements[l].slots_of_expert.size(); ++e) {
        const std::vector<Slot>& replicas = placements[l].slots_of_expert[e];
        std::vector<std::int32_t> padded(replicas.begin(), replicas.end());
        EXPECT_EQ(padded.size(), c.at("logical_count").at(l).at(e).get<std::size_t>());
        const auto expected = c.at("logical_to_physical").at(l).at(e).get<std::vector<std::int32_t>>();
        padded.resize(expected.size(), -1);
        EXPECT_EQ(padded, expected) << "layer " << l << " expert " << e;
      }
    }
    ++cases;
  }
  EXPECT_GT(cases, 0);
}

}  // namespace
}  // namespace epsim
