// Placements as frameworks make them, on cases worked by hand.
#include <gmock/gmock.h>

#include <numeric>

#include "tests/support/machines.h"
#include "tests/support/placing.h"
#include "tests/support/random_problem.h"

namespace epsim {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::input_error;
using testing::peak;
using testing::place_first;
using testing::problem_of_loads;
using testing::problem_of_tokens;
using testing::skewed_loads;

TEST(ForceBalanced, HasEveryExpertOnEveryRankInEqualShares) {
  Problem p = problem_of_loads({{90, 5, 1}}, 4);
  const Placement even = place_first("force_balanced", p);
  EXPECT_THAT(even.expert_of_slot, ElementsAre(0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2));
  EXPECT_THAT(even.first_slot, ElementsAre(0, 3, 6, 9, 12));
  EXPECT_THAT(even.share, Each(0.25));
  p.speed = {1, 0.5, 0.25, 0.25};
  EXPECT_THAT(place_first("force_balanced", p).share, ElementsAre(0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125))
      << "ranks of half the speed take half as much";
}

TEST(TensorrtLlm, PacksTheHeaviestOntoTheLightestRankWithRoom) {
  // 8 | 7, 7 + 6, 8 + 5, then both have 13: the first takes 4 and is full.
  EXPECT_THAT(place_first("tensorrt_llm", problem_of_loads({{8, 7, 6, 5, 4, 3}}, 2)).expert_of_slot, ElementsAre(0, 3, 4, 1, 2, 5));
  EXPECT_DOUBLE_EQ(peak(place_first("tensorrt_llm: {slots: 16}", problem_of_loads({skewed_loads()}, 8)), skewed_loads()), 232.0);  // vLLM pull request 37656
}

TEST(TensorrtLlm, CopiesEvenlyWithoutLoad) {
  const Placement p = place_first("tensorrt_llm: {slots: 5}", problem_of_loads({{0, 0, 0}}, 2));
  EXPECT_THAT(p.slots_of_expert, ElementsAre(::testing::SizeIs(2), ::testing::SizeIs(2), ::testing::SizeIs(1)));
}

TEST(TensorrtLlm, LetsOldBatchesDecay) {
  const Problem p = problem_of_loads({{100, 0}, {0, 60}}, 3);
  EXPECT_THAT(place_first("tensorrt_llm: {slots: 3}", p).slots_of_expert[0], ::testing::SizeIs(2));
  EXPECT_THAT(place_first("tensorrt_llm: {slots: 3, decay: 0.5}", p).slots_of_expert[1], ::testing::SizeIs(2)) << "50 against 60";
}

TEST(DeepseekVec, CopiesWhatIsHotInItsBatch) {
  // Over all batches expert 1 has more, 210 against 200; but a copy of expert 0 saves 100 in the first batch, one of expert 1 37.5 in each of the others.
  const Problem p = problem_of_loads({{200, 60}, {0, 75}, {0, 75}}, 3);
  EXPECT_THAT(place_first("deepseek_vec: {slots: 3}", p).expert_of_slot, ElementsAre(1, 0, 0));
  EXPECT_THAT(place_first("eplb: {slots: 3}", p).expert_of_slot, ElementsAre(0, 1, 1));
}

TEST(DeepseekVec, DealsInSnakeOrder) {
  EXPECT_THAT(place_first("deepseek_vec", problem_of_loads({{6, 5, 4, 3, 2, 1}}, 2)).expert_of_slot, ElementsAre(0, 3, 4, 1, 2, 5));
  const Placement uneven = place_first("deepseek_vec", problem_of_loads({{5, 4, 3, 2, 1}}, 2));
  EXPECT_THAT(uneven.expert_of_slot, ElementsAre(0, 3, 4, 1, 2));
  EXPECT_THAT(uneven.first_slot, ElementsAre(0, 3, 5));
  EXPECT_THAT(place_first("deepseek_vec", problem_of_loads({{7, 7}}, 2)).expert_of_slot, ElementsAre(1, 0)) << "1e-4 x index parts ties";
  EXPECT_DOUBLE_EQ(peak(place_first("deepseek_vec: {slots: 16}", problem_of_loads({skewed_loads()}, 8)), skewed_loads()), 232.0);
}

TEST(DeepseekVec, HierarchicalKeepsGroupsOnNodes) {
  // The README's example of EPLB: groups {0-2}, {3-5}, {6-8}, {9-11} have 262, 330, 116 and 325; the second and third go to node 0, the first and last to
  // node 1.
  const Problem p = problem_of_loads({{90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86}}, 8, 2);
  const Placement placed = place_first("deepseek_vec: {slots: 16, groups: 4, mode: hierarchical}", p);
  for (const Slot s : ids<Slot>(16)) {
    const int e = placed.expert_of_slot[static_cast<std::size_t>(s)];
    EXPECT_EQ(s < 8, e >= 3 && e < 9) << s;
  }
}

// I11
TEST(DeepseekVec, SaysWhyItCannotUseASetting) {
  const auto error = [](const std::string& yaml, int ranks, int nodes) {
    return input_error([&] { place_first(yaml, problem_of_loads({std::vector<std::int64_t>(12, 1)}, ranks, nodes)); });
  };
  EXPECT_THAT(error("deepseek_vec: {groups: 4}", 8, 2), HasSubstr("`groups` has no use in `mode: global`"));
  EXPECT_THAT(error("deepseek_vec: {slots: 16, groups: 5, mode: hierarchical}", 8, 5), HasSubstr("12 experts do not divide into 5 groups"));
  EXPECT_THAT(error("deepseek_vec: {slots: 16, groups: 3, mode: hierarchical}", 8, 2), HasSubstr("3 expert groups do not divide over 2 nodes"));
  EXPECT_THAT(error("deepseek_vec: {slots: 18, groups: 4, mode: hierarchical}", 9, 2), HasSubstr("9 ranks do not divide over 2 nodes"));
  EXPECT_THAT(error("deepseek_vec: {slots: 17, groups: 4, mode: hierarchical}", 8, 2), HasSubstr("24 would do"));
  EXPECT_THAT(error("deepseek_vec: {slots: 16, groups: 4, mode: hierarchical}", 8, 2), "") << "the control";
}

TEST(ElasticityAware, PlacesAsIfRanksThatAreDownWereNotThere) {
  const std::vector<std::int64_t> loads = {90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86};
  const Placement p = place_first("elasticity_aware: {slots: 16, down: 3}", problem_of_loads({loads}, 8, 2));
  EXPECT_THAT(p.first_slot, ElementsAre(0, 2, 4, 6, 6, 8, 10, 12, 14));
  EXPECT_EQ(p.expert_of_slot, place_first("eplb: {slots: 14, mode: global}", problem_of_loads({loads}, 7)).expert_of_slot);
  EXPECT_THAT(place_first("elasticity_aware: {down: [0, 2-7]}", problem_of_loads({loads}, 8, 2)).first_slot, ElementsAre(0, 0, 13, 13, 13, 13, 13, 13, 13))
      << "one redundant slot on the one rank that is up";
  EXPECT_EQ(place_first("elasticity_aware: {slots: 16, groups: 4}", problem_of_loads({loads}, 8, 2)).expert_of_slot,
            place_first("eplb: {slots: 16, groups: 4}", problem_of_loads({loads}, 8, 2)).expert_of_slot);
}

// I11
TEST(ElasticityAware, SaysWhyItCannotUseASetting) {
  const auto error = [](const std::string& settings) {
    return input_error([&] { place_first("elasticity_aware: {" + settings + "}", problem_of_loads({std::vector<std::int64_t>(12, 1)}, 8, 2)); });
  };
  EXPECT_THAT(error("down: 6-8"), HasSubstr("test.yaml:1:26: error: there is no rank 8"));
  EXPECT_THAT(error("down: 0-7"), HasSubstr("all ranks are down"));
  EXPECT_THAT(error("slots: 16, down: 0-2"), HasSubstr("2 slots a rank are 10 on the 5 ranks that are up, fewer than the 12 experts; 24 would do"));
  EXPECT_THAT(error("slots: 24, down: 0-2"), "") << "the control";
  EXPECT_THAT(error("mode: hierarchical, groups: 4, down: 1"), HasSubstr("`groups` has no use with ranks down"));
  EXPECT_THAT(error("mode: hierarchical, groups: 4, down: 1"), HasSubstr("`mode: hierarchical` cannot be with ranks down"));
}

TEST(TopologyAware, PutsExpertsWhereTheirTokensAre) {
  const Topology machine = testing::tree(2, 2, 4e11, 5e10);
  Problem p = problem_of_loads({{100, 50, 40, 1}}, 4, 2);
  p.topology = &machine;
  p.counts[0] = Matrix<std::int64_t>(4, 4);
  p.counts[0](3, 0) = 100;
  p.counts[0](3, 1) = 50;
  p.counts[0](0, 2) = 10, p.counts[0](2, 2) = 30;
  p.counts[0](2, 3) = 1;
  // 0 on rank 3, its only source; 1 wants it too and takes the other rank of the node; 2 would be best on rank 2, which is full: of ranks 0 and 1 the first is
  // itself a source. 3 takes what is left.
  EXPECT_THAT(place_first("topology_aware", p).expert_of_slot, ElementsAre(2, 3, 1, 0));
}

TEST(TopologyAware, EqualsASumOverAllSources) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    const testing::RandomProblem c(seed);
    const Problem& p = c.problem;
    const std::vector<Placement> placed = testing::place_all("topology_aware", p);
    for (std::size_t l = 0; l < placed.size(); ++l) {
      const auto cost = [&](int e, Rank d) {
        double sum = 0;
        for (const Rank s : ids<Rank>(p.ranks))
          if (s != d) sum += static_cast<double>(p.counts[l](s, e)) / c.topology.bandwidth(s, d);
        return sum;
      };
      std::vector<int> order(static_cast<std::size_t>(p.experts)), room;
      std::iota(order.begin(), order.end(), 0);
      const std::vector<std::int64_t> loads = p.loads(l);
      std::ranges::stable_sort(order, [&](int a, int b) { return loads[static_cast<std::size_t>(a)] > loads[static_cast<std::size_t>(b)]; });
      for (int r = 0; r < p.ranks; ++r)
        room.push_back(placed[l].first_slot[static_cast<std::size_t>(r) + 1] - placed[l].first_slot[static_cast<std::size_t>(r)]);
      for (const int e : order) {
        const Rank at = placed[l].rank_of(placed[l].slots_of_expert[static_cast<std::size_t>(e)][0]);
        for (const Rank r : ids<Rank>(p.ranks))
          EXPECT_TRUE(room[static_cast<std::size_t>(r)] == 0 || cost(e, at) <= cost(e, r) * (1 + 1e-12)) << "expert " << e << " would be nearer on rank " << r;
        EXPECT_GT(room[static_cast<std::size_t>(at)]--, 0);
      }
    }
  }
}

TEST(Cooccurrence, GathersExpertsThatTokensChooseTogether) {
  std::vector<std::vector<std::uint16_t>> tokens(10, {0, 4, 5});
  tokens.insert(tokens.end(), 10, {1, 2, 3});
  const Problem p = problem_of_tokens(tokens, 6, 2, 1);
  EXPECT_THAT(place_first("cooccurrence: {alpha: 1}", p).expert_of_slot, ElementsAre(0, 4, 5, 1, 2, 3));
  // Of 3 slots 2 are filled so; 3 and 5 go to the lightest rank, which is the first where both have as much.
  EXPECT_THAT(place_first("cooccurrence", p).expert_of_slot, ElementsAre(0, 4, 3, 1, 2, 5));
}

TEST(Cooccurrence, StopsWhereTheLoadWouldBeTooMuch) {
  // Loads 9, 3, 6, 0: the mean rank has 9. Expert 2 is chosen with 0 most often but would make 15.
  std::vector<std::vector<std::uint16_t>> tokens(6, {0, 2});
  tokens.insert(tokens.end(), 3, {0, 1});
  EXPECT_THAT(place_first("cooccurrence: {alpha: 1}", problem_of_tokens(tokens, 4, 2, 1)).expert_of_slot, ElementsAre(0, 3, 2, 1));
}

TEST(ReplicateTopK, PutsTheHeaviestOnEveryRank) {
  const Problem p = problem_of_loads({{5, 100, 3, 2}}, 2);
  const Placement one = place_first("replicate_top_k", p);
  EXPECT_THAT(one.first_slot, ElementsAre(0, 3, 5)) << "4 - 1 + 2 slots";
  EXPECT_THAT(one.expert_of_slot, ElementsAre(1, 0, 3, 1, 2));
  EXPECT_THAT(place_first("replicate_top_k: {slots: 6}", p).expert_of_slot, ElementsAre(1, 0, 2, 1, 0, 3)) << "2, as many as fit";
  // The slot that is over is a copy of expert 0: 2.5 each, on different ranks; 2 goes first with 3.
  EXPECT_THAT(place_first("replicate_top_k: {slots: 6, k: 1}", p).expert_of_slot, ElementsAre(1, 2, 0, 1, 0, 3));
  // 6, then 5 and 5: the second 5 would be lightest on rank 1, which has the first.
  EXPECT_THAT(place_first("replicate_top_k: {slots: 6, k: 1}", problem_of_loads({{6, 100, 10, 1}}, 2)).expert_of_slot, ElementsAre(1, 0, 2, 1, 2, 3));
}

// I11
TEST(ReplicateTopK, SaysWhyItCannotUseASetting) {
  const auto error = [](const std::string& settings) {
    return input_error([&] { place_first("replicate_top_k: {" + settings + "}", problem_of_loads({{5, 100, 3, 2}}, 2)); });
  };
  EXPECT_THAT(error("k: 5"), HasSubstr("5 experts cannot be on every rank: the model has 4"));
  EXPECT_THAT(error("k: 2, slots: 5"), HasSubstr("5 slots are fewer than the 6 that 4 experts, 2 of them on each of 2 ranks, need"));
  EXPECT_THAT(error("slots: 3"), HasSubstr("3 slots are fewer than the 4 that 4 experts need"));
  EXPECT_THAT(error("k: 4, slots: 8"), "") << "the control";
}

}  // namespace
}  // namespace epsim
