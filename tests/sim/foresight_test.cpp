// What one layer's choices foretell of the next, alone and as statistics of `rebalance`.
#include <gmock/gmock.h>

#include "sim/run.h"
#include "tests/support/part_from_yaml.h"

namespace epsim {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::input_error;

/// Two ranks and four experts; a choice a token.
Routing choices(std::vector<std::uint16_t> expert) {
  Routing r;
  r.experts = 4, r.top_k = 1, r.may_choose_fewer = true;
  r.first_token = {0, static_cast<std::int64_t>(expert.size()) / 2, static_cast<std::int64_t>(expert.size())};
  r.expert = std::move(expert);
  r.weight.assign(r.expert.size(), 1);
  return r;
}

TEST(Foresight, KnowsWhatAlwaysFollows) {
  Foresight f(2);
  EXPECT_THAT(f.of(0).cells, ElementsAre());
  f.see(0, choices({0, 1, 2, 3}));
  EXPECT_THAT(f.of(1).cells, ElementsAre()) << "nothing has followed yet";
  f.see(1, choices({1, 2, 3, 0}));
  EXPECT_THAT(f.of(0).cells, ElementsAre()) << "the first layer follows none";
  f.see(0, choices({3, 3, 3, 0, 1, 2, 2, 2}));
  EXPECT_THAT(f.of(1).cells, ElementsAre(3, 1, 0, 0, 0, 0, 1, 3)) << "each home's own";
}

TEST(Foresight, SharesAsItHasSeenAndTakesTheRestForAnyone) {
  Foresight f(2);
  f.see(0, choices({0, 0, 0, 0, 1, kNoExpert}));
  f.see(1, choices({1, 1, 1, 2, 3, 3}));
  f.see(0, choices({0, 0, 0, 0, 2, 2, 2, 2, 2, kNoExpert}));
  // Expert 0 is followed by 1 and 2 as 3 to 1, and nobody was seen to choose 2: 1, 2 and 3 followed as 3, 1 and 1.
  EXPECT_THAT(f.of(1).cells, ElementsAre(0, 3 + 1, 1, 0, 0, 2, 1, 1));
}

Experiment experiment(const std::string& more) {
  const std::string yaml =
      "model: mixtral-8x7b\ncluster: {single_switch: {ranks: 4, device: h800}}\nsource: {zipf: {tokens_per_rank: 64, exponent: 1}}\nnetwork: ideal\nexchange: direct\n" + more;
  return read_experiment(std::make_shared<SourceText>(SourceText{"test.yaml", yaml}), {}, builtin_catalogs());
}

TEST(Predicted, StatisticsShowEachLayerWhatTheOneBeforeForetells) {
  Experiment e = experiment("layers: [0, 1]\nbatches: 3\nrebalance: {statistics: predicted}\n");
  std::vector<Problem> seen;
  e.placement.place = [&](const Problem& p) {
    seen.push_back(p);
    return std::vector<Placement>{Placement::from_experts({0, 1, 2, 3, 4, 5, 6, 7}, {0, 2, 4, 6, 8}, 8)};
  };
  std::vector<Routing> routed;
  run(e, Timeline::Detail::rank, [&](LayerRun& layer) {
    routed.push_back(layer.plan.routing);
    return true;
  });
  ASSERT_EQ(seen.size(), 6U);
  EXPECT_THAT(seen[0].counts[0].cells, Each(1));
  EXPECT_THAT(seen[1].counts[0].cells, Each(1));
  EXPECT_EQ(seen[2].counts[0], count_choices(routed[0])) << "the first layer: what was seen of it";
  EXPECT_EQ(seen[4].batches[0].rows, 2);
  Foresight f(2);
  for (const std::size_t i : {0U, 1U, 2U}) f.see(i % 2, routed[i]);
  EXPECT_EQ(seen[3].counts[0], f.of(1));
  EXPECT_EQ(seen[3].layers, std::vector<int>{1});
}

TEST(Predicted, IsRefusedWhereItForetellsNothing) {
  const auto refusal = [](const std::string& more) { return input_error([&] { experiment(more); }); };
  EXPECT_THAT(refusal("layers: 0\nbatches: 2\nrebalance: {statistics: predicted}\n"), HasSubstr("give two `layers` or more"));
  EXPECT_THAT(refusal("layers: 0-1\nbatches: 2\nplacement: grace\nrebalance: {statistics: predicted}\n"), HasSubstr("foretells counts only"));
  EXPECT_THAT(refusal("layers: 0-1\nplacement: exflow\nrebalance: {statistics: predicted}\nfit: 0:1\nbatches: 2\n"), HasSubstr("predicted statistics show it one at a time"));
  EXPECT_THAT(refusal("layers: 0-1\nrebalance: {statistics: predicted, moving: overlapped}\n"), HasSubstr("come too late"));
  EXPECT_THAT(refusal("layers: 0-1\nrebalance: {statistics: predicted, threshold: 2}\n"), HasSubstr("`threshold` has no effect with statistics: predicted"));
  EXPECT_EQ(refusal("layers: 0-1\nplacement: {epsim_opt: {slots: 12}}\nrebalance: {statistics: predicted, moving: blocking}\nfit: 0:1\nbatches: 3\n"), "");
}

}  // namespace
}  // namespace epsim
