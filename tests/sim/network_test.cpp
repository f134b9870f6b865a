#include <numeric>

#include <gtest/gtest.h>

#include "tests/support/machines.h"
#include "tests/support/network_rig.h"
#include "tests/support/progressive_filling.h"

namespace epsim::testing {
namespace {

constexpr Time kUs{1'000'000};
constexpr double kRate = 1e9;  // bytes/s, a byte a nanosecond

class EveryNetwork : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Networks, EveryNetwork, ::testing::Values("ideal", "fair"), [](const auto& i) { return std::string(i.param); });

TEST_P(EveryNetwork, OneMessageTakesItsBytesAndItsLatency) {
  const Topology t = tree(2, 2, kRate, kRate / 4, kUs);
  NetworkRig inside(GetParam(), t), across(GetParam(), t);
  inside.expect_arrival(inside.send(0, 0, 1, 1e6), 1e6 / kRate + 2e-6);
  across.expect_arrival(across.send(5e-6, 0, 2, 1e6), 5e-6 + 1e6 / (kRate / 4) + 4e-6);
}

TEST_P(EveryNetwork, APortOfARankIsSharedByItsMessages) {
  const Topology t = star(4, kRate, kUs);
  NetworkRig out(GetParam(), t), in(GetParam(), t);
  for (int r = 1; r < 4; ++r) out.expect_arrival(out.send(0, 0, r, 1e6), 3e6 / kRate + 2e-6);
  for (int r = 1; r < 4; ++r) in.expect_arrival(in.send(0, r, 0, 1e6), 3e6 / kRate + 2e-6);
}

TEST_P(EveryNetwork, DirectionsDoNotShare) {
  NetworkRig rig(GetParam(), star(2, kRate));
  rig.expect_arrival(rig.send(0, 0, 1, 1e6), 1e6 / kRate);
  rig.expect_arrival(rig.send(0, 1, 0, 1e6), 1e6 / kRate);
}

TEST_P(EveryNetwork, AUniformAllToAllFillsItsPorts) {
  for (const int ranks : {2, 8, 64}) {
    NetworkRig rig(GetParam(), star(ranks, kRate));
    for (int s = 0; s < ranks; ++s)
      for (int d = 0; d < ranks; ++d)
        if (s != d) rig.expect_arrival(rig.send(0, s, d, 1000), 1000 * (ranks - 1) / kRate);
  }
}

TEST_P(EveryNetwork, NothingUnderWayIsNever) {
  const Topology t = star(2, kRate);
  const auto network = network_named(GetParam()).make(t);
  EXPECT_EQ(network->next_event(), std::numeric_limits<double>::infinity());
}

// I6: no message beats its uncontended time, no link carries more than its bandwidth. I3: nothing arrives before it was sent.
TEST_P(EveryNetwork, NoMessageBeatsItsUncontendedTimeAndNoLinkItsBandwidth) {
  for (std::uint64_t run = 0; run < 300; ++run) {
    Rng rng(1, Stream::test, run);
    const Topology t = random_machine(rng);
    NetworkRig rig(GetParam(), t);
    std::vector<TimedFlow> flows;
    for (int f = 0; f < 40; ++f) {
      const int s = static_cast<int>(rng.below(t.ranks())), d = static_cast<int>((s + 1 + rng.below(t.ranks() - 1)) % t.ranks());
      flows.push_back({s, d, std::floor(log_uniform(rng, 1, 1e7)), rng.below(3) ? 0 : rng.uniform() * 1e-3});
      rig.send(flows.back().begin, s, d, flows.back().bytes);
    }
    std::vector<double> bytes(t.links().size()), first(t.links().size(), 1e9), last(t.links().size());
    for (std::size_t f = 0; f < flows.size(); ++f) {
      const double latency = t.latency(Rank(flows[f].source), Rank(flows[f].destination)).seconds(), at = rig.arrivals()[f];
      const double alone = flows[f].begin + flows[f].bytes / t.bandwidth(Rank(flows[f].source), Rank(flows[f].destination)) + latency;
      ASSERT_GE(at, alone * (1 - 1e-14)) << "run " << run << " message " << f;
      t.for_each_link(Rank(flows[f].source), Rank(flows[f].destination), [&](int l) {
        bytes[l] += flows[f].bytes;
        first[l] = std::min(first[l], flows[f].begin);
        last[l] = std::max(last[l], at - latency);
      });
    }
    for (std::size_t l = 0; l < bytes.size(); ++l) {
      if (bytes[l] == 0) continue;
      ASSERT_GE((last[l] - first[l]) * t.links()[l].bandwidth, bytes[l] * (1 - 1e-9)) << "run " << run << " link " << l;
    }
  }
}

// I10: rates x 2 and latencies / 2 halve every time.
TEST_P(EveryNetwork, ScalesWithItsUnits) {
  Rng rng(2, Stream::test);
  const Topology slow = tree(2, 4, kRate, 2 * kRate, Time{2 * kUs.ps}), fast = tree(2, 4, 2 * kRate, 4 * kRate, kUs);
  NetworkRig a(GetParam(), slow), b(GetParam(), fast);
  for (int s = 0; s < 8; ++s)
    for (int d = 0; d < 8; ++d)
      if (s != d) {
        const double bytes = log_uniform(rng, 1, 1e6), begin = rng.uniform() * 1e-4;
        a.send(begin, s, d, bytes);
        b.send(begin / 2, s, d, bytes);
      }
  for (std::size_t f = 0; f < a.arrivals().size(); ++f) EXPECT_NEAR(b.arrivals()[f], a.arrivals()[f] / 2, a.arrivals()[f] * 1e-12);
}

// I9: ranks of a single switch are alike.
TEST_P(EveryNetwork, RanksOfASwitchAreAlike) {
  for (std::uint64_t run = 0; run < 50; ++run) {
    Rng rng(3, Stream::test, run);
    const int ranks = 8;
    const Topology t = star(ranks, kRate, kUs);
    std::vector<std::uint32_t> other(ranks);
    rng.permutation(other);
    NetworkRig a(GetParam(), t), b(GetParam(), t);
    for (int s = 0; s < ranks; ++s)
      for (int d = 0; d < ranks; ++d)
        if (s != d) {
          const double bytes = std::floor(log_uniform(rng, 1, 1e6));
          a.send(0, s, d, bytes);
          b.send(0, static_cast<int>(other[s]), static_cast<int>(other[d]), bytes);
        }
    for (std::size_t f = 0; f < a.arrivals().size(); ++f) ASSERT_NEAR(b.arrivals()[f], a.arrivals()[f], a.arrivals()[f] * 1e-12) << "run " << run;
  }
}

TEST(Fair, WhatOneLeavesTheOthersTake) {
  // Two out of one port share it; when the shorter has gone the longer has the port: 1000 + 1000 bytes at half rate, then 2000 more.
  NetworkRig rig("fair", star(3, kRate));
  rig.expect_arrival(rig.send(0, 0, 1, 1000), 2000 / kRate);
  rig.expect_arrival(rig.send(0, 0, 2, 3000), 4000 / kRate);
}

TEST(Fair, AMessageTakesWhatAnotherBottleneckLeaves) {
  // Three into rank 3 get a third of its port. Rank 0's second message takes the two thirds that are left of rank 0's port.
  NetworkRig rig("fair", star(5, kRate));
  for (int s = 0; s < 3; ++s) rig.expect_arrival(rig.send(0, s, 3, 1e6), 3e6 / kRate);
  rig.expect_arrival(rig.send(0, 0, 4, 2e6), 3e6 / kRate);
}

TEST(Fair, ALaterMessageTakesItsShareFromItsBeginning) {
  // Alone for 1 us (1000 bytes), then half the port until the second has gone (2 us), then alone again.
  NetworkRig rig("fair", star(3, kRate));
  rig.expect_arrival(rig.send(0, 0, 1, 3000), 4e-6);
  rig.expect_arrival(rig.send(1e-6, 0, 2, 1000), 3e-6);
}

TEST(Fair, AnUplinkIsSharedByItsNode) {
  const Topology t = tree(2, 4, kRate, kRate, kUs);
  NetworkRig rig("fair", t);
  for (int s = 0; s < 4; ++s) rig.expect_arrival(rig.send(0, s, 4 + s, 1e6), 4e6 / kRate + 4e-6);
}

TEST(Fair, MessagesOfOnePairShareAsTwo) {
  NetworkRig rig("fair", star(2, kRate));
  rig.expect_arrival(rig.send(0, 0, 1, 1000), 2000 / kRate);
  rig.expect_arrival(rig.send(0, 0, 1, 1000), 2000 / kRate);
}

NetworkModel fair_with(const std::string& settings) {
  Diagnostics problems;
  NetworkModel model = builtin_networks().make(parse_yaml(std::make_shared<const SourceText>(SourceText{"test", "{fair: {" + settings + "}}"})), problems);
  problems.check();
  return model;
}

void expect_oracle(const Topology& t, const std::vector<TimedFlow>& flows, const std::string& name, bool by_latency = false) {
  NetworkRig rig(by_latency ? fair_with("weights: cm02") : network_named("fair"), t);
  for (const TimedFlow& f : flows) rig.send(f.begin, f.source, f.destination, f.bytes);
  const std::vector<double> expected = progressive_filling(t, flows, by_latency);
  for (std::size_t f = 0; f < flows.size(); ++f) ASSERT_NEAR(rig.arrivals()[f], expected[f], expected[f] * 1e-9) << name << ", message " << f;
}

std::vector<TimedFlow> random_flows(Rng& rng, const Topology& t) {
  const std::uint64_t sizes = rng.below(4), starts = rng.below(3);
  const bool dense = rng.below(2) == 0;
  std::vector<TimedFlow> flows;
  for (int s = 0; s < t.ranks(); ++s)
    for (int d = 0; d < t.ranks(); ++d) {
      if (s == d || (!dense && rng.below(3))) continue;
      const double bytes = sizes == 0 ? 1e6 : sizes == 1 ? static_cast<double>(1 + rng.below(5)) : sizes == 2 ? log_uniform(rng, 1, 1e10) : std::floor(log_uniform(rng, 1e5, 1e6));
      // Nothing; a few common instants; an instant of its own. On the scale of what the messages take.
      const double scale = sizes == 1 ? 1e-8 : 1e-2;
      flows.push_back({s, d, bytes, starts == 0 ? 0 : starts == 1 ? static_cast<double>(rng.below(4)) * scale : rng.uniform() * scale});
    }
  return flows;
}

// Random machines and matrices: equal sizes and sizes of a few bytes (many ties), every size its own over ten decades, few messages and dense ones, together and staggered.
TEST(Fair, AgreesWithProgressiveFilling) {
  for (std::uint64_t run = 0; run < 4000; ++run) {
    Rng rng(4, Stream::test, run);
    const Topology t = random_machine(rng);
    const std::vector<TimedFlow> flows = random_flows(rng, t);
    if (flows.empty()) continue;
    expect_oracle(t, flows, "run " + std::to_string(run));
    if (HasFatalFailure()) return;
  }
}

TEST(Fair, AgreesWithProgressiveFillingOnLargerMachines) {
  for (std::uint64_t run = 0; run < 6; ++run) {
    Rng rng(5, Stream::test, run);
    const Topology t = run % 2 ? fat_tree(4, 4, 4, kRate, kUs) : tree(4, 4, kRate, 2 * kRate, kUs);
    std::vector<TimedFlow> flows;
    for (int s = 0; s < t.ranks(); ++s)
      for (int d = 0; d < t.ranks(); ++d)
        if (s != d) flows.push_back({s, d, run < 4 ? std::floor(1e6 * std::exp(rng.normal())) : std::floor(1e6 / (d + 1)), run < 2 ? 0 : rng.uniform() * 1e-3});
    expect_oracle(t, flows, "run " + std::to_string(run));
    if (HasFatalFailure()) return;
  }
}

// Traffic spread over several paths: links carry different shares of a flow.
TEST(Fair, AgreesWithProgressiveFillingWhereTrafficIsSpread) {
  for (std::uint64_t run = 0; run < 1000; ++run) {
    Rng rng(6, Stream::test, run);
    const Topology t = random_machine(rng, {run % 4 ? PathRule::Kind::spread : PathRule::Kind::ecmp, run});
    const std::vector<TimedFlow> flows = random_flows(rng, t);
    if (flows.empty()) continue;
    expect_oracle(t, flows, "run " + std::to_string(run));
    if (HasFatalFailure()) return;
  }
}

// Shares in inverse proportion to latency: latencies of a few ratios, whose weights are whole, and of any.
TEST(Fair, AgreesWithProgressiveFillingWhereSharesAreWeighted) {
  for (std::uint64_t run = 0; run < 1000; ++run) {
    Rng rng(7, Stream::test, run);
    const int nodes = 1 + static_cast<int>(rng.below(3)), each = 2 + static_cast<int>(rng.below(3));
    const bool any = rng.below(2) == 0;
    const auto latency = [&] { return any ? Time{1 + static_cast<std::int64_t>(rng.below(2'000'000))} : kUs; };
    MachineBuilder b;
    for (int r = 0; r < nodes * each; ++r) b.rank(r / each);
    const int core = b.a_switch();
    for (int n = 0; n < nodes; ++n) {
      const int hub = b.a_switch();
      for (int r = n * each; r < (n + 1) * each; ++r) b.cable(r, hub, kRate, latency());
      b.cable(hub, core, kRate * static_cast<double>(1 + rng.below(3)), latency());
    }
    const Topology t = b.build();
    const std::vector<TimedFlow> flows = random_flows(rng, t);
    if (flows.empty()) continue;
    expect_oracle(t, flows, "run " + std::to_string(run), true);
    if (HasFatalFailure()) return;
  }
}

TEST(Fair, ManySendersSlowTheirReceiver) {
  // Four into a port at 0.8 of its rate until the short one has gone, then three at 0.8 + log(4/3)/log(2) x 0.2.
  NetworkRig rig(fair_with("incast: {2: 1, 4: 0.8}"), star(6, kRate));
  const double three = 1 - 0.2 * std::log(1.5) / std::log(2);
  rig.expect_arrival(rig.send(0, 1, 0, 1000), 4000 / (0.8 * kRate));
  for (int s = 2; s < 5; ++s) rig.expect_arrival(rig.send(0, s, 0, 3000), 4000 / (0.8 * kRate) + 6000 / (three * kRate));
  rig.expect_arrival(rig.send(0, 5, 1, 1000), 1000 / kRate);
}

// Links into ranks that give less the more messages come in, on machines where others would always fill first.
TEST(Fair, AgreesWithProgressiveFillingWhereManySendersSlowTheirReceiver) {
  const auto incast = [](int n) { return n <= 2 ? 1 : n >= 8 ? 0.5 : 1 - 0.5 * std::log(n / 2.0) / std::log(4); };
  for (std::uint64_t run = 0; run < 1000; ++run) {
    Rng rng(11, Stream::test, run);
    const Topology t = random_machine(rng, {run % 4 ? PathRule::Kind::dmodk : PathRule::Kind::spread, run});
    const std::vector<TimedFlow> flows = random_flows(rng, t);
    NetworkRig rig(fair_with("incast: {2: 1, 8: 0.5}"), t);
    for (const TimedFlow& f : flows) rig.send(f.begin, f.source, f.destination, f.bytes);
    const std::vector<double> expected = progressive_filling(t, flows, false, incast);
    for (std::size_t f = 0; f < flows.size(); ++f) ASSERT_NEAR(rig.arrivals()[f], expected[f], expected[f] * 1e-9) << "run " << run << ", message " << f;
  }
}

TEST(Fair, AnIncastThatMeansNothingIsAnError) {
  for (const char* wrong : {"incast: 0.5", "incast: {0: 1}", "incast: {x: 1}", "incast: {8: 2}", "incast: {8: 0.5, 16: 0.6}"}) EXPECT_THROW(fair_with(wrong), InputError) << wrong;
}

TEST(Fair, AShorterPathHasTheLargerShare) {
  // Rank 0 hears from rank 1 over two links and from rank 2 over four: shares of its port are 2 : 1. 2000 bytes take 3 us from 2 us on, when 1000 of the other's 3000 would be through, had it not begun 2 us later:
  // it gets a third of the port for 1 us (from 4 to 5 us), then all of it.
  const Topology t = tree(2, 2, kRate, kRate, kUs);
  NetworkRig rig(fair_with("weights: cm02"), t);
  rig.expect_arrival(rig.send(0, 1, 0, 2000 + 2000.0 / 3), 2e-6 + 2e-6 + 1e-6);
  rig.expect_arrival(rig.send(0, 2, 0, 3000), 5e-6 + (3000 - 1000.0 / 3) / kRate);
}

TEST(Fair, WhatIsExpectedChangesNothing) {
  for (std::uint64_t run = 0; run < 200; ++run) {
    Rng rng(8, Stream::test, run);
    const Topology t = random_machine(rng);
    const std::vector<TimedFlow> flows = random_flows(rng, t);
    std::vector<RankPair> pairs;
    for (int s = 0; s < t.ranks(); ++s)
      for (int d = 0; d < t.ranks(); ++d)
        if (s != d && rng.below(4)) pairs.push_back({s, d});
    NetworkRig told("fair", t);
    told.network().expect(pairs);
    for (const TimedFlow& f : flows) told.send(f.begin, f.source, f.destination, f.bytes);
    const std::vector<double> expected = progressive_filling(t, flows);
    for (std::size_t f = 0; f < flows.size(); ++f) ASSERT_NEAR(told.arrivals()[f], expected[f], expected[f] * 1e-9) << "run " << run << ", message " << f;
  }
}

TEST(Fair, AToleranceIsKept) {
  Rng rng(9, Stream::test);
  const Topology t = fat_tree(4, 8, 8, kRate);
  NetworkRig exact("fair", t), fast(fair_with("tolerance: 1e-3"), t);
  std::vector<double> errors;
  for (int s = 0; s < t.ranks(); ++s)
    for (int d = 0; d < t.ranks(); ++d)
      if (s != d) {
        const double bytes = std::floor(1e6 * std::exp(rng.normal()));
        exact.send(0, s, d, bytes);
        fast.send(0, s, d, bytes);
      }
  for (std::size_t f = 0; f < exact.arrivals().size(); ++f) errors.push_back(std::abs(fast.arrivals()[f] / exact.arrivals()[f] - 1));
  std::sort(errors.begin(), errors.end());
  EXPECT_GT(errors.back(), 1e-9) << "the tolerance was used";
  EXPECT_EQ(exact.network().arrival_error(), 0);
  const double p99 = errors[errors.size() * 99 / 100];
  EXPECT_GT(fast.network().arrival_error(), p99 / 3) << "of its error it knows the size";
  EXPECT_LT(fast.network().arrival_error(), p99 * 3);
  EXPECT_LT(errors[errors.size() * 99 / 100], 4e-3) << "the length of an event";
  EXPECT_LT(errors.back(), 4e-2);
}

TEST(Fair, PathsWithoutLatencyCannotBeWeightedByIt) {
  MachineBuilder b;
  for (int r = 0; r < 3; ++r) b.rank(0);
  const int hub = b.a_switch();
  b.cable(0, hub, kRate), b.cable(1, hub, kRate), b.cable(2, hub, kRate, kUs);
  const Topology t = b.build();
  EXPECT_THROW(fair_with("weights: cm02").make(t), InputError);
  EXPECT_NO_THROW(fair_with("weights: cm02").make(star(2, kRate)));
}

TEST(Ideal, LinksDoNotHoldEachOtherBack) {
  // Three into rank 3 fill its port; under `ideal` rank 0's other message is there when rank 0's own port has carried its 3 MB.
  NetworkRig rig("ideal", star(5, kRate));
  for (int s = 0; s < 3; ++s) rig.expect_arrival(rig.send(0, s, 3, 1e6), 3e6 / kRate);
  rig.expect_arrival(rig.send(0, 0, 4, 2e6), 3e6 / kRate);
}

TEST(Ideal, ALaterBatchWaitsForTheEarlierOnItsLinks) {
  NetworkRig rig("ideal", star(3, kRate));
  rig.expect_arrival(rig.send(0, 0, 1, 3000), 3e-6);
  rig.expect_arrival(rig.send(1e-6, 0, 2, 1000), 4e-6);
  rig.expect_arrival(rig.send(9e-6, 0, 2, 1000), 10e-6);
}

}  // namespace
}  // namespace epsim::testing
