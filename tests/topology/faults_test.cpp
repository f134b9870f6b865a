#include "topology/faults.h"

#include <gmock/gmock.h>

#include "tests/topology/make.h"

namespace epsim {
namespace {

using testing::HasSubstr;

const std::string kTree = "{fat_tree: {nodes: 8, device: h800, nodes_per_leaf: 4, spines: 2";

TEST(Faults, ScaleTheLinksOfAPattern) {
  const Topology whole = make(kTree + "}}"), t = make(kTree + ", faults: [{link: 'leaf 0 -> *', scale: 0.5}, {link: 'leaf ? -> spine 1', scale: 0.5}]}}");
  ASSERT_EQ(t.links().size(), whole.links().size());
  for (std::size_t l = 0; l < t.links().size(); ++l) {
    const std::string& name = t.links()[l].name;
    const double first = name.starts_with("leaf 0 -> ") ? 0.5 : 1, second = name.ends_with("-> spine 1") ? 0.5 : 1;
    EXPECT_EQ(t.links()[l].bandwidth, whole.links()[l].bandwidth * first * second) << name;
  }
}

TEST(Faults, PathsAvoidRemovedLinks) {
  const Topology t = make(kTree + ", faults: [{link: leaf 0 -> spine 1, failed: true}]}}");
  for (int d = 4; d < 8; ++d) {
    EXPECT_EQ(path(t, 0, d)[1], "leaf 0 -> spine 0");
    EXPECT_EQ(path(t, d, 0)[1], "leaf 1 -> spine 0") << "destination 0 is even";
    EXPECT_EQ(path(t, d, 1)[1], "leaf 1 -> spine 1") << "the other way is whole";
  }
}

TEST(Faults, ANicThatIsGoneLeavesThePathsOfOthers) {
  const std::string rails = "{multi_rail: {nodes: 2, ranks_per_node: 2, device: h800";
  const Topology t = make(rails + ", faults: [{nic: 3}]}}");
  // Rank 3's bytes now come and go through its node's other NIC, across the node's switch.
  EXPECT_EQ(path(t, 0, 3), (std::vector<std::string>{"rank 0 -> nic 0 of node 0, out", "nic 0 of node 0, out -> leaf of rail 0", "leaf of rail 0 -> nic 0 of node 1, in",
                                                     "nic 0 of node 1, in -> nvswitch 1", "nvswitch 1 -> rank 3"}));
  EXPECT_EQ(path(t, 0, 2).size(), 4u);
  EXPECT_THAT(complaint("{rail_fat_tree: {nodes: 2, ranks_per_node: 2, device: h800, faults: [{nic: 3}]}}"), HasSubstr("there is no path from rank 0 to rank 3"));
}

TEST(Faults, SayWhatIsWrong) {
  EXPECT_THAT(complaint(kTree + ", faults: [{link: leaf 0 -> spin 1, scale: 0.5}]}}"), HasSubstr("1:76: error: there is no link `leaf 0 -> spin 1`, did you mean `leaf 0 -> spine 1`?"));
  EXPECT_THAT(complaint(kTree + ", faults: [{link: 'x*', failed: true}]}}"), HasSubstr("there is no link `x*`"));
  EXPECT_THAT(complaint(kTree + ", faults: [{link: 'rank 3 -> *', failed: true}]}}"), HasSubstr("there is no path from rank 3 to rank 0"));
  EXPECT_THAT(complaint(kTree + ", faults: [{link: a, scale: 0}]}}"), HasSubstr("`scale` must be"));
  EXPECT_THAT(complaint(kTree + ", faults: [{link: a}]}}"), HasSubstr("needs either `scale` or `failed: true`"));
  EXPECT_THAT(complaint(kTree + ", faults: [{link: a, scale: 2, failed: true}]}}"), HasSubstr("needs either `scale` or `failed: true`"));
  EXPECT_THAT(complaint(kTree + ", faults: [{link: a, nic: 2}]}}"), HasSubstr("not of both"));
  EXPECT_THAT(complaint(kTree + ", faults: [{lnk: a}]}}"), HasSubstr("a fault has no setting `lnk`, did you mean `link`?"));
  EXPECT_THAT(complaint(kTree + ", faults: broken}}"), HasSubstr("`faults` must be a list"));
  EXPECT_THAT(complaint(kTree + ", faults: [broken]}}"), HasSubstr("a fault is {link: NAME"));
  EXPECT_THAT(complaint(kTree + ", faults: [{nic: 8}]}}"), HasSubstr("rank 8 has no NIC"));
  EXPECT_THAT(complaint("{single_switch: {ranks: 2, device: h800, faults: [{nic: 1}]}}"), HasSubstr("rank 1 has no NIC of its own"));
}

TEST(Faults, GiveAnotherTopology) {
  const Topology t = make(kTree + ", routing: {ecmp: {seed: 3}}}}");
  const Topology slow = scaled(t, "* -> spine 0", 0.25), cut = without(t, "leaf 1 -> spine 0");
  EXPECT_EQ(slow.links().size(), t.links().size());
  EXPECT_EQ(cut.links().size(), t.links().size() - 1);
  EXPECT_EQ(cut.path_rule().seed, 3u);
  EXPECT_EQ(cut.summary, t.summary);
  for (std::size_t l = 0; l < t.links().size(); ++l) EXPECT_EQ(slow.links()[l].bandwidth, t.links()[l].bandwidth * (t.links()[l].name.ends_with("-> spine 0") ? 0.25 : 1));
  EXPECT_THROW(without(t, "leaf 9 -> *"), InputError);
  EXPECT_THROW(without(t, "leaf 1 -> *"), InputError);
}

}  // namespace
}  // namespace epsim
