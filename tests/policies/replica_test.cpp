#include "policies/replica.h"

#include <gmock/gmock.h>

#include "tests/support/part_from_yaml.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using testing::part_from_yaml;

std::vector<std::uint16_t> deal(int source, int replicas, int copies) {
  const ReplicaRule rule = part_from_yaml(builtin_replica_rules(), "round_robin", static_cast<const Shape*>(nullptr));
  const std::vector<Slot> slots(static_cast<std::size_t>(replicas), Slot(0));
  std::vector<std::uint16_t> out(static_cast<std::size_t>(copies));
  rule.decide({0, 1, {}, {}, {}})({Rank(source), Expert(0), slots, {}}, out);
  return out;
}

TEST(ReplicaRoundRobin, DealsCopiesInTurnFromTheSourcesOwnStart) {
  EXPECT_THAT(deal(0, 3, 7), ElementsAre(0, 1, 2, 0, 1, 2, 0));
  EXPECT_THAT(deal(1, 3, 4), ElementsAre(1, 2, 0, 1));
  EXPECT_THAT(deal(8, 3, 2), ElementsAre(2, 0));
  EXPECT_THAT(deal(5, 1, 2), ElementsAre(0, 0));
}

TEST(ReplicaRules, AllSayWhatTheyAreWhenListed) {
  const ReplicaCatalog catalog = builtin_replica_rules();
  for (const ReplicaCatalog::Entry& entry : catalog.entries()) {
    Params listing;
    EXPECT_FALSE(entry.make(listing, nullptr).summary.empty()) << entry.name;
  }
}

}  // namespace
}  // namespace epsim
