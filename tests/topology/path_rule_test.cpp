// Which of equal next hops traffic takes.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cmath>
#include <map>

#include "tests/topology/make.h"

namespace epsim {
namespace {

using testing::HasSubstr;

/// Three tiers of switches with k ports: k pods of k/2 leaves of k/2 hosts, k^2/4 cores; every link alike.
std::string k_ary(int k, const std::string& more = "") {
  return fmt::format("{{fat_tree: {{nodes: {}, tiers: 3, device: h800, nodes_per_leaf: {}, spines: {}, leaves_per_pod: {}, cores: {}{}}}}}", k * k * k / 4, k / 2, k / 2, k / 2, k * k / 4, more);
}
std::string two_tier_tree(int leaves, int hosts, int spines, const std::string& more = "") {
  return fmt::format("{{fat_tree: {{nodes: {}, device: h800, nodes_per_leaf: {}, spines: {}{}}}}}", leaves * hosts, hosts, spines, more);
}

TEST(DModK, UpLinksOfEveryTierCarryResidueClassesOfDestinations) {
  for (const int k : {2, 4, 6, 8}) {
    const Topology t = make(k_ary(k));
    const int half = k / 2;
    ASSERT_EQ(t.ranks(), k * k * k / 4);
    for (int s = 0; s < t.ranks(); ++s)
      for (int d = 0; d < t.ranks(); ++d) {
        const std::vector<std::string> links = path(t, s, d);
        if (links.size() < 4) continue;
        const int pod = s / (half * half), spine = d % half;
        ASSERT_EQ(links[1], fmt::format("leaf {} -> spine {} of pod {}", s / half, spine, pod));
        if (links.size() == 6) {
          ASSERT_EQ(links[2], fmt::format("spine {} of pod {} -> core {}", spine, pod, spine * half + d / half % half)) << s << " to " << d;
        }
      }
  }
}

TEST(DModK, AFullAllToAllLoadsAllLinksOfATierAlike) {
  for (const int k : {4, 6, 8}) {
    const Topology t = make(k_ary(k));
    const std::vector<double> load = all_to_all(t);
    const int n = t.ranks(), half = k / 2;
    // A rank sends to all others; what leaves a leaf or a pod is spread evenly over its up-links.
    for (const std::size_t l : tier(t, "host")) EXPECT_EQ(load[l], n - 1);
    for (const std::size_t l : tier(t, "spine")) EXPECT_EQ(load[l], n - half);
    for (const std::size_t l : tier(t, "core")) EXPECT_EQ(load[l], n - half * half);
  }
}

TEST(First, TakesTheFirstLink) {
  const Topology t = make(two_tier_tree(2, 2, 4, ", routing: first"));
  for (int s = 0; s < 2; ++s)
    for (int d = 2; d < 4; ++d) EXPECT_EQ(path(t, s, d)[1], "leaf 0 -> spine 0");
}

TEST(Ecmp, HashesPairsEvenlyAndBySeed) {
  // 64 x 192 pairs leave each leaf by one of 4 spines.
  const auto spines = [](int seed) {
    const Topology t = make(two_tier_tree(4, 64, 4, fmt::format(", routing: {{ecmp: {{seed: {}}}}}", seed)));
    std::vector<std::string> chosen;
    for (int s = 0; s < 64; ++s)
      for (int d = 64; d < 256; ++d) chosen.push_back(path(t, s, d)[1]);
    return chosen;
  };
  const std::vector<std::string> one = spines(1);
  std::map<std::string, int> count;
  for (const std::string& link : one) ++count[link];
  ASSERT_EQ(count.size(), 4u);
  const double expected = 64.0 * 192 / 4;
  double chi = 0;
  for (const auto& [link, n] : count) chi += (n - expected) * (n - expected) / expected;
  EXPECT_LT(chi, 16.3);  // of 3 degrees of freedom, 1 in 1000
  EXPECT_EQ(one, spines(1));
  const std::vector<std::string> two = spines(2);
  int same = 0;
  for (std::size_t i = 0; i < one.size(); ++i) same += one[i] == two[i];
  EXPECT_NEAR(same, expected, 5 * std::sqrt(expected * 3 / 4)) << "another seed chooses anew";
}

TEST(Spread, DividesEvenlyOverAllPaths) {
  const Topology t = make(two_tier_tree(3, 4, 5, ", routing: spread"));
  std::map<std::string, double> shares;
  std::vector<std::string> order;
  t.for_each_share(Rank(1), Rank(11), [&](std::int32_t l, double share) {
    const std::string& name = t.links()[static_cast<std::size_t>(l)].name;
    EXPECT_TRUE(shares.emplace(name, share).second) << "each link once";
    order.push_back(name);
  });
  EXPECT_EQ(shares.size(), 2u + 2 * 5);
  EXPECT_EQ(order.front(), "rank 1 -> leaf 0");
  EXPECT_EQ(order.back(), "leaf 2 -> rank 11");
  for (const auto& [name, share] : shares) EXPECT_DOUBLE_EQ(share, name.find("spine") == std::string::npos ? 1 : 0.2) << name;
  // The spines carry 50 GB/s x 4 / 5 each and a fifth of the bytes: the port is what binds.
  EXPECT_DOUBLE_EQ(t.bandwidth(Rank(1), Rank(11)), 50e9);
  EXPECT_EQ(path(t, 1, 11), order);
  t.for_each_share(Rank(3), Rank(3), [](std::int32_t, double) { FAIL(); });
}

TEST(Spread, SharesOfAThreeTierTreeAddUpAtEveryVertex) {
  const Topology t = make(k_ary(6, ", routing: spread"));
  for (const auto& [s, d] : {std::pair{0, 1}, {0, 4}, {0, 53}, {17, 35}}) {
    std::map<std::int32_t, double> into, out;
    t.for_each_share(Rank(s), Rank(d), [&](std::int32_t l, double share) {
      const Link& link = t.links()[static_cast<std::size_t>(l)];
      out[link.from] += share;
      into[link.to] += share;
    });
    for (const auto& [v, share] : out)
      EXPECT_NEAR(t.vertices()[static_cast<std::size_t>(v)].rank.valid() ? 1 : into[v], share, 1e-12);
  }
  // Every link of a tier carries the same of a full all-to-all, by symmetry.
  const std::vector<double> load = all_to_all(t);
  for (const std::size_t l : tier(t, "core")) EXPECT_NEAR(load[l], 54 - 9, 1e-9);
  for (const std::size_t l : tier(t, "spine")) EXPECT_NEAR(load[l], 54 - 3, 1e-9);
}

TEST(Spread, LatencyIsTheLongestPathsAndBandwidthThatOfAllPaths) {
  // Two switches between the ranks: one slow to reach, one narrow.
  const auto vertex = [](int r) { return Vertex{fmt::format("v{}", r), r < 2 ? Rank(r) : Rank(), r < 2 ? Node(0) : Node()}; };
  std::vector<Link> links;
  const auto join = [&](int a, int b, Bandwidth rate, std::int64_t ns) {
    links.push_back({fmt::format("{}-{}", a, b), "t", a, b, rate, Time{1000 * ns}});
    links.push_back({fmt::format("{}-{}", b, a), "t", b, a, rate, Time{1000 * ns}});
  };
  join(0, 2, 1e9, 10), join(2, 1, 1e9, 500), join(0, 3, 1e9, 20), join(3, 1, 0.25e9, 20);
  const Topology t({vertex(0), vertex(1), vertex(2), vertex(3)}, links, *find_device("cpu"), {}, {PathRule::Kind::spread});
  EXPECT_EQ(t.latency(Rank(0), Rank(1)).ps, 510'000);
  EXPECT_DOUBLE_EQ(t.bandwidth(Rank(0), Rank(1)), 0.5e9);  // half of the bytes cross 0.25 GB/s
  EXPECT_EQ(t.latency(Rank(0), Rank(0)).ps, 0);
}

TEST(PathRules, AreSettingsOfEveryShape) {
  EXPECT_THAT(complaint("{single_switch: {ranks: 2, device: h800, routing: dmod}}"), HasSubstr("1:51: error: there is no routing `dmod`, did you mean `dmodk`?"));
  EXPECT_THAT(complaint("{single_switch: {ranks: 2, device: h800, routing: {ecmp: {sed: 1}}}}"), HasSubstr("routing `ecmp` has no setting `sed`, did you mean `seed`?"));
  EXPECT_THAT(complaint("{single_switch: {ranks: 2, device: h800, routing: {spread: {seed: 1}}}}"), HasSubstr("routing `spread` has no setting `seed`"));
  EXPECT_EQ(make("{single_switch: {ranks: 2, device: h800, routing: {ecmp: {seed: 7}}}}").path_rule().seed, 7u);
}

TEST(NextHops, TablesOf4096RanksAreSmall) {
  const Topology t = make("{fat_tree: {nodes: 4096, device: h800, nodes_per_leaf: 16, spines: 16}}");
  EXPECT_EQ(t.links().size(), 2u * 4096 + 2u * 256 * 16);
  // 4 bytes from each of 272 switches to each of 256 leaves, and 4 x 16 + 16 x 256 sets and links; 24 bytes for each link of a rank.
  EXPECT_LT(t.next_hops().bytes(), 1u << 20);
}

}  // namespace
}  // namespace epsim
