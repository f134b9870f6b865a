// How exchanges carry bytes: their hops against the algorithms' own definitions.
#include "policies/journey.h"

#include <gmock/gmock.h>

#include <bit>
#include <set>

#include <fmt/format.h>

#include "policies/schedule.h"
#include "tests/support/machines.h"
#include "tests/support/part_from_yaml.h"

namespace epsim {
namespace {

using Hops = std::vector<Journey::Hop>;

Journey journey_of(const std::string& exchange, const Topology& topology) {
  return testing::part_from_yaml(builtin_exchanges(), exchange, static_cast<const Shape*>(nullptr)).journey(topology);
}

Hops hops_of(const Journey& j, int s, int d) {
  Hops hops;
  j.find(Rank(s), Rank(d), hops);
  return hops;
}

Topology line(int ranks) { return testing::star(ranks, 1e9); }

/// Nodes of these sizes.
Topology nodes_of(const std::vector<int>& sizes) {
  testing::MachineBuilder b;
  int node = 0, ranks = 0;
  for (const int size : sizes) {
    for (int i = 0; i < size; ++i, ++ranks) b.rank(node);
    ++node;
  }
  const int hub = b.a_switch();
  for (int r = 0; r < ranks; ++r) b.cable(r, hub, 1e9);
  return b.build();
}

TEST(Journey, LeadsFromSourceToDestinationInRoundsThatWaitForEachOther) {
  for (const std::string exchange : {"direct", "pairwise", "{spread_out: {window: 3}}", "ring", "bruck", "hierarchical_2d", "hierarchical", "low_latency", "one_sided_nvlink"})
    for (const std::vector<int>& sizes : std::vector<std::vector<int>>{{1}, {2}, {3}, {1, 1, 1, 1, 1, 1, 1}, {4, 4}, {3, 1, 4}, {8, 8, 8, 8}}) {
      const Topology t = nodes_of(sizes);
      const Journey j = journey_of(exchange, t);
      SCOPED_TRACE(fmt::format("{} on {} ranks in {} nodes", exchange, t.ranks(), t.nodes()));
      for (int s = 0; s < t.ranks(); ++s)
        for (int d = 0; d < t.ranks(); ++d) {
          const Hops hops = hops_of(j, s, d);
          ASSERT_EQ(hops.empty(), s == d);
          for (std::size_t i = 0; i < hops.size(); ++i) {
            ASSERT_NE(hops[i].from, hops[i].to);
            ASSERT_LT(hops[i].round, static_cast<int>(j.rounds.size()));
            ASSERT_EQ(hops[i].from, i == 0 ? s : hops[i - 1].to.value);
            if (i == 0) continue;
            const std::vector<int>& after = j.rounds[static_cast<std::size_t>(hops[i].round)].after;
            ASSERT_TRUE(std::find(after.begin(), after.end(), hops[i - 1].round) != after.end()) << "a forwarded row must be there";
          }
          if (s != d) {
            ASSERT_EQ(hops.back().to, d);
          }
        }
    }
}

// Rounds of MPICH's pairwise exchange: partners where R is a power of two, else a shift.
TEST(Journey, PairwiseRoundsAreMatchings) {
  for (const int ranks : {2, 4, 8, 16, 3, 6, 7, 12}) {
    const Topology t = line(ranks);
    const Journey j = journey_of("pairwise", t);
    ASSERT_EQ(static_cast<int>(j.rounds.size()), ranks - 1);
    for (int r = 1; r < ranks; ++r)
      for (int i = 0; i < ranks; ++i) {
        const int to = std::has_single_bit(static_cast<unsigned>(ranks)) ? i ^ r : (i + r) % ranks;
        EXPECT_EQ(hops_of(j, i, to), (Hops{{r - 1, Rank(i), Rank(to)}}));
      }
  }
}

TEST(Journey, SpreadOutWaitsOnlyForItsOwnMessages) {
  const Topology t = line(6);
  const Journey j = journey_of("{spread_out: {window: 2}}", t);
  ASSERT_EQ(j.rounds.size(), 5u);
  for (int r = 0; r < 5; ++r) {
    EXPECT_TRUE(j.rounds[static_cast<std::size_t>(r)].after.empty());
    EXPECT_EQ(j.rounds[static_cast<std::size_t>(r)].after_sent, r < 2 ? std::vector<int>{} : std::vector<int>{r - 2});
  }
  EXPECT_EQ(hops_of(j, 4, 1), (Hops{{2, Rank(4), Rank(1)}}));
}

TEST(Journey, ARingStepsToTheNextRank) {
  const Topology t = line(5);
  EXPECT_EQ(hops_of(journey_of("ring", t), 3, 1), (Hops{{0, Rank(3), Rank(4)}, {1, Rank(4), Rank(0)}, {2, Rank(0), Rank(1)}}));
}

// Bruck et al. 1997: ceil(log2 R) rounds; a row makes one hop for each bit of its distance.
TEST(Journey, BruckHopsByBitsOfTheDistance) {
  for (int ranks = 1; ranks <= 33; ++ranks) {
    const Topology t = line(ranks);
    const Journey j = journey_of("bruck", t);
    int rounds = 0;
    while (1 << rounds < ranks) ++rounds;
    ASSERT_EQ(static_cast<int>(j.rounds.size()), rounds);
    for (int d = 0; d < ranks; ++d) ASSERT_EQ(std::popcount(static_cast<unsigned>((d + ranks - ranks / 2) % ranks)), static_cast<int>(hops_of(j, ranks / 2, d).size()));
  }
  const Topology t = line(7);
  EXPECT_EQ(hops_of(journey_of("bruck", t), 3, 1), (Hops{{0, Rank(3), Rank(4)}, {2, Rank(4), Rank(1)}}));
}

// Tutel's 2DH: inside the node first, to the destination's place, then on its rail.
TEST(Journey, TwoDimensionsAreANodeAndARail) {
  const Topology t = nodes_of({4, 4});
  const Journey j = journey_of("hierarchical_2d", t);
  EXPECT_EQ(hops_of(j, 1, 6), (Hops{{0, Rank(1), Rank(2)}, {1, Rank(2), Rank(6)}}));
  EXPECT_EQ(hops_of(j, 1, 5), (Hops{{1, Rank(1), Rank(5)}})) << "the rank is on the rail already";
  EXPECT_EQ(hops_of(j, 1, 3), (Hops{{0, Rank(1), Rank(3)}})) << "a node's own rows cross no rail";
  const Topology uneven = nodes_of({2, 4});
  EXPECT_EQ(hops_of(journey_of("hierarchical_2d", uneven), 0, 5), (Hops{{0, Rank(0), Rank(1)}, {1, Rank(1), Rank(5)}})) << "place 3 of 2 ranks is place 1";
}

TEST(Journey, TheHierarchyCrossesFirst) {
  const Topology t = nodes_of({4, 4});
  EXPECT_EQ(hops_of(journey_of("hierarchical", t), 1, 6), (Hops{{0, Rank(1), Rank(5)}, {1, Rank(5), Rank(6)}}));
}

TEST(Journey, SingleRowsAreSingleMessages) {
  const Topology t = line(4);
  EXPECT_EQ(journey_of("low_latency", t).rows_per_message, 1);
  EXPECT_TRUE(journey_of("low_latency", t).one_sided);
  EXPECT_EQ(journey_of("one_sided_nvlink", t).rows_per_message, 0);
  EXPECT_TRUE(journey_of("one_sided_nvlink", t).one_sided);
  EXPECT_FALSE(journey_of("direct", t).one_sided);
}

TEST(Journey, AllGatherHasNoMeaningWithoutTokens) {
  EXPECT_EQ(testing::part_from_yaml(builtin_exchanges(), "allgather_reducescatter", static_cast<const Shape*>(nullptr)).journey, nullptr);
}

// I11
TEST(Exchange, OneSidedOverNvlinkNeedsOneNode) {
  Shape shape;
  shape.ranks = 16, shape.nodes = 2;
  const auto make = [&](const char* yaml) { return testing::input_error([&] { testing::part_from_yaml(builtin_exchanges(), yaml, static_cast<const Shape*>(&shape)); }); };
  EXPECT_THAT(make("one_sided_nvlink"), ::testing::HasSubstr("the cluster has 2 nodes"));
  EXPECT_EQ(make("low_latency"), "");
  shape.nodes = 1;
  EXPECT_EQ(make("one_sided_nvlink"), "");
  EXPECT_EQ(make("{direct: {chunks: 2}}"), "");
  EXPECT_THAT(make("{direct: {chunks: 2, chunk_experts: true}}"), ::testing::HasSubstr("chunk_experts")) << "one hop has nothing but experts to overlap with";
  EXPECT_THAT(make("{ring: {chunk_experts: true}}"), ::testing::HasSubstr("there is one part: give `chunks` too"));
}

TEST(Carry, CountsForwardedBytesOnEveryHop) {
  const Topology t = line(4);
  Matrix<std::int64_t> bytes(4, 4);
  bytes(0, 1) = 1, bytes(0, 2) = 10, bytes(0, 3) = 100, bytes(2, 2) = 1000;
  const Schedule s = carry(journey_of("ring", t), bytes);
  ASSERT_EQ(s.phases.size(), 3u);
  EXPECT_EQ(s.phases[0].rows, RowTable(4, {{Rank(0), Rank(1), 111}}));
  EXPECT_EQ(s.phases[1].rows, RowTable(4, {{Rank(1), Rank(2), 110}}));
  EXPECT_EQ(s.phases[2].rows, RowTable(4, {{Rank(2), Rank(3), 100}}));
  EXPECT_EQ(s.phases[2].after, std::vector<int>{1});
  EXPECT_EQ(s.phases[2].name, "bytes 3");
}

}  // namespace
}  // namespace epsim
