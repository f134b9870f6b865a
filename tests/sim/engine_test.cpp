#include "sim/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/machines.h"
#include "tests/support/network_rig.h"
#include "tests/support/schedules.h"

namespace epsim::testing {
namespace {

using ::testing::ElementsAre;

constexpr double kRate = 1e9;  // a byte a nanosecond
constexpr Time ns(std::int64_t n) { return {n * 1000}; }

Timeline play(const Schedule& s, const Topology& t, const std::string& network = "fair") {
  return simulate(s, t, network_named(network), nanoseconds(), Precision::bf16, Timeline::Detail::flow);
}

TEST(Engine, PhasesFollowOneAnotherOnEachRank) {
  const Topology t = star(3, kRate, ns(10));
  // Rank 0 computes 100, sends 1000 to rank 1, which computes 50; rank 2 has nothing to do with any of it.
  const Schedule s{3, {kernels({}, {{0, 100}, {1, 7}}), transfer(3, {0}, {{0, 1, 1000}}), kernels({1}, {{1, 50}, {0, 3}})}};
  const Timeline line = play(s, t);
  EXPECT_THAT(line.done[0], ElementsAre(ns(100), ns(7), ns(0)));
  EXPECT_THAT(line.done[1], ElementsAre(ns(100), ns(1120), ns(0))) << "what receives nothing is done when it begins";
  EXPECT_THAT(line.done[2], ElementsAre(ns(103), ns(1170), ns(0)));
  EXPECT_EQ(line.end, ns(1170));
  ASSERT_EQ(line.flows.size(), 1u);
  EXPECT_EQ(line.flows[0].begin, ns(100));
  EXPECT_EQ(line.flows[0].end, ns(1120));
  EXPECT_EQ(line.flows[0].bytes, 1000);
}

// I3: a rank is not done with a transfer before it has begun it, though all has arrived.
TEST(Engine, ATransferWaitsForTheReceiversOwnWork) {
  const Schedule s{2, {kernels({}, {{1, 5000}}), transfer(2, {0}, {{0, 1, 1000}})}};
  const Timeline line = play(s, star(2, kRate));
  EXPECT_EQ(line.flows[0].end, ns(1000));
  EXPECT_EQ(line.done[1][1], ns(5000));
}

TEST(Engine, ARankSendsAllAtOnceAndMessagesShareItsPort) {
  const Schedule s{3, {transfer(3, {}, {{0, 1, 1000}, {0, 2, 3000}, {1, 1, 1'000'000}})}};
  const Timeline line = play(s, star(3, kRate));
  EXPECT_THAT(line.done[0], ElementsAre(ns(0), ns(2000), ns(4000))) << "rows that stay cross no link";
}

TEST(Engine, ARankComputesOneKernelAtATime) {
  const Schedule s{2, {kernels({}, {{0, 100}, {0, 20}}), kernels({}, {{0, 30}, {1, 5}}), reduce({}, {8, 0})}};
  const Timeline line = play(s, star(2, kRate));
  EXPECT_THAT(line.done[2], ElementsAre(ns(8), ns(0))) << "a reduce goes first, no reduce takes no turn";
  EXPECT_THAT(line.done[0], ElementsAre(ns(128), ns(0)));
  EXPECT_THAT(line.done[1], ElementsAre(ns(158), ns(5)));
  ASSERT_EQ(line.slices.size(), 5u);
  EXPECT_EQ(line.slices[1].begin, ns(108));
  EXPECT_EQ(line.slices[1].end, ns(128));
  EXPECT_EQ(line.slices[2].begin, ns(128));
}

TEST(Engine, SlicesOfATransferSpanItsMessages) {
  const Schedule s{4, {kernels({}, {{0, 100}, {1, 400}}), transfer(4, {0}, {{0, 1, 1000}, {1, 0, 10}})}};
  const Timeline line = play(s, star(4, kRate));
  std::vector<Timeline::Slice> moves;
  for (const Timeline::Slice& x : line.slices)
    if (x.phase == 1) moves.push_back(x);
  ASSERT_EQ(moves.size(), 2u);
  EXPECT_EQ(moves[0].rank, 0);
  EXPECT_EQ(moves[0].begin, ns(100));
  EXPECT_EQ(moves[0].end, ns(1100));
  EXPECT_EQ(moves[0].rows, 10);
  EXPECT_EQ(moves[1].begin, ns(100)) << "its first message began when rank 0 sent it";
}

TEST(Engine, NothingToDoTakesNoTime) {
  const Schedule s{3, {transfer(3, {}, {}), kernels({0}, {{0, 0}}), reduce({1}, {0, 0, 0}), transfer(3, {2}, {{1, 1, 9}})}};
  const Timeline line = play(s, star(3, kRate));
  EXPECT_EQ(line.end, ns(0));
  EXPECT_TRUE(line.slices.empty());
  EXPECT_EQ(play({3, {}}, star(3, kRate)).end, ns(0));
}

TEST(Engine, StagesFollowTheSlowestRankAndAddUp) {
  const Schedule s{2, {transfer(2, {}, {{0, 1, 1000}}), kernels({0}, {{0, 9000}, {1, 300}}), transfer(2, {1}, {{1, 0, 500}}, Stage::combine)}};
  const Timeline line = play(s, star(2, kRate));
  const Timeline::Stages stages = line.stages(s);
  EXPECT_EQ(stages.dispatch, ns(1000));
  EXPECT_EQ(stages.compute, ns(8000));
  EXPECT_EQ(stages.combine, ns(0)) << "the message had come long before rank 0 was done computing";
  EXPECT_EQ(stages.dispatch + stages.compute + stages.combine, line.end);
}

TEST(Engine, AStageThatIsOverBeforeTheOneBeforeTakesNothing) {
  const Schedule s{2, {kernels({}, {{0, 300}}), transfer(2, {}, {{0, 1, 1000}}), transfer(2, {1}, {{1, 0, 500}}, Stage::combine)}};
  const Timeline line = play(s, star(2, kRate));
  EXPECT_EQ(line.stages(s).dispatch, ns(1000));
  EXPECT_EQ(line.stages(s).compute, ns(0)) << "an early kernel runs beside the dispatch";
  EXPECT_EQ(line.stages(s).combine, ns(500));
}

TEST(Engine, SchedulesOverlapOnOneNetworkAndOneDevice) {
  const Topology t = star(2, kRate);
  const ComputeModel compute = nanoseconds();
  const Schedule a{2, {transfer(2, {}, {{0, 1, 1000}}), kernels({0}, {{1, 100}})}}, b = a;
  const auto network = network_named("fair").make(t);
  Engine engine(t, *network, compute, Precision::bf16);
  engine.add(a);
  engine.add(b);
  const std::vector<Timeline> lines = engine.run();
  EXPECT_EQ(lines[0].done[0][1], ns(2000)) << "two messages share the port";
  EXPECT_EQ(lines[0].end, ns(2100));
  EXPECT_EQ(lines[1].end, ns(2200)) << "the later kernel waits for the device";
  EXPECT_TRUE(lines[0].flows.empty()) << "flows are recorded only when asked for";
}

TEST(Engine, AScheduleWaitsForAnotherRankByRank) {
  const Topology t = star(3, kRate);
  const ComputeModel compute = nanoseconds();
  const Schedule a{3, {kernels({}, {{0, 100}, {1, 200}})}}, empty{3, {}}, b{3, {kernels({}, {{0, 10}, {1, 10}, {2, 10}}), kernels({}, {{0, 1}})}};
  const auto network = network_named("ideal").make(t);
  Engine engine(t, *network, compute, Precision::bf16);
  const int first = engine.add(a), second = engine.add(empty, {first});
  engine.add(b, {first, second});
  const std::vector<Timeline> lines = engine.run();
  EXPECT_THAT(lines[2].done[0], ElementsAre(ns(110), ns(210), ns(10)));
  EXPECT_THAT(lines[2].done[1], ElementsAre(ns(111), ns(200), ns(0)));
}

TEST(Engine, RefusesSchedulesThatCannotFinish) {
  const Topology t = star(2, kRate);
  EXPECT_THROW(play({2, {kernels({0}, {})}}, t), std::logic_error) << "waits for itself";
  EXPECT_THROW(play({2, {kernels({1}, {}), kernels({}, {})}}, t), std::logic_error) << "waits for a later phase";
  EXPECT_THROW(play({2, {kernels({-1}, {})}}, t), std::logic_error);
  EXPECT_THROW(play({3, {}}, t), std::logic_error) << "more ranks than the machine";
  EXPECT_THROW(play({2, {transfer(3, {}, {})}}, t), std::logic_error);
  EXPECT_THROW(play({2, {transfer(2, {}, {{0, 1, -5}})}}, t), std::logic_error);
  EXPECT_THROW(play({2, {kernels({}, {{2, 1}})}}, t), std::logic_error);
  EXPECT_THROW(play({2, {reduce({}, {1})}}, t), std::logic_error);
  EXPECT_THROW(play({2, {kernels({}, {{0, 1e17}})}}, t), std::logic_error) << "longer than 100 days";
  EXPECT_THROW(play({2, {transfer(2, {}, {{0, 1, std::int64_t{1} << 60}})}}, t), std::logic_error) << "longer than 100 days";
  const ComputeModel compute = nanoseconds();
  const auto network = network_named("ideal").make(t);
  Engine engine(t, *network, compute, Precision::bf16);
  const Schedule none{2, {}};
  EXPECT_THROW(engine.add(none, {0}), std::logic_error) << "waits for itself";
}

/// A network that loses what it is given.
class Hole : public Network {
  void start(const std::vector<Flow>&, double) override {}
  double next_event() override { return std::numeric_limits<double>::infinity(); }
  void advance(double, std::vector<Arrival>&) override {}
};

TEST(Engine, NeverHangsWhenAMessageIsLost) {
  const NetworkModel hole{"loses everything", [](const Topology&) { return std::make_unique<Hole>(); }};
  EXPECT_THROW(simulate({2, {transfer(2, {}, {{0, 1, 1}})}}, star(2, kRate), hole, nanoseconds(), Precision::bf16), std::logic_error);
}

// I2, I3: every message is delivered once and after it began; phases end in the order they wait for each other; the end is the last of all. I5: a second run gives the same.
TEST(Engine, RandomSchedulesAreCausal) {
  for (std::uint64_t run = 0; run < 400; ++run) {
    Rng rng(6, Stream::test, run);
    const Topology t = random_machine(rng);
    const Schedule s = random_schedule(rng, t.ranks());
    for (const char* network : {"fair", "ideal"}) {
      const Timeline line = play(s, t, network);
      std::vector<Matrix<Bytes>> moved(s.phases.size(), Matrix<Bytes>(t.ranks(), t.ranks()));
      for (const Timeline::FlowRecord& f : line.flows) {
        ASSERT_GT(f.end, f.begin);
        ASSERT_GE(line.done[f.phase][f.destination], f.end);
        moved[f.phase](f.source, f.destination) += f.bytes;
      }
      Time end;
      for (std::size_t p = 0; p < s.phases.size(); ++p) {
        if (s.phases[p].kind == Phase::Kind::transfer) {
          ASSERT_EQ(moved[p], s.phases[p].rows.dense());
        }
        for (int r = 0; r < t.ranks(); ++r) {
          for (const int before : s.phases[p].after) ASSERT_GE(line.done[p][r], line.done[before][r]);
          end = std::max(end, line.done[p][r]);
        }
      }
      ASSERT_EQ(line.end, end);
      const Timeline::Stages stages = line.stages(s);
      ASSERT_EQ(stages.dispatch + stages.compute + stages.combine, line.end);
      ASSERT_EQ(play(s, t, network).done, line.done);
    }
  }
}

// I10: all rates x 2 and all latencies and costs / 2 halve the times, to a picosecond for each operation in a chain.
TEST(Engine, ScalesWithItsUnits) {
  const Topology slow = tree(2, 4, kRate, 2 * kRate, ns(200)), fast = tree(2, 4, 2 * kRate, 4 * kRate, ns(100));
  ComputeModel half = nanoseconds();
  half.kernel_seconds = [](const Device&, const KernelCall& k, Precision) { return k.flops * 0.5e-9; };
  half.reduce_seconds = [](const Device&, double bytes) { return bytes * 0.5e-9; };
  for (std::uint64_t run = 0; run < 100; ++run) {
    Rng rng(7, Stream::test, run);
    const Schedule s = random_schedule(rng, 8);
    for (const char* network : {"fair", "ideal"}) {
      const Timeline a = play(s, slow, network), b = simulate(s, fast, network_named(network), half, Precision::bf16);
      EXPECT_NEAR(static_cast<double>(b.end.ps), static_cast<double>(a.end.ps) / 2, 2.0 * static_cast<double>(s.phases.size())) << network << ", run " << run;
    }
  }
}

// I9: permuting the ranks of a single switch together with the schedule leaves its end.
TEST(Engine, RanksOfASwitchAreAlike) {
  const Topology t = star(6, kRate, ns(50));
  for (std::uint64_t run = 0; run < 100; ++run) {
    Rng rng(8, Stream::test, run);
    const Schedule s = random_schedule(rng, 6);
    std::vector<std::uint32_t> other(6);
    rng.permutation(other);
    Schedule moved = s;
    for (std::size_t p = 0; p < s.phases.size(); ++p) {
      std::vector<RowTable::Entry> entries(s.phases[p].rows.all().begin(), s.phases[p].rows.all().end());
      for (RowTable::Entry& e : entries) e.source = Rank(other[e.source]), e.destination = Rank(other[e.destination]);
      moved.phases[p].rows = RowTable(s.phases[p].rows.ranks(), std::move(entries));
      if (s.phases[p].kind == Phase::Kind::reduce)
        for (int a = 0; a < 6; ++a) moved.phases[p].reduce_bytes[other[a]] = s.phases[p].reduce_bytes[a];
      for (KernelCall& k : moved.phases[p].kernels) k.rank = Rank(other[k.rank]);
    }
    for (const char* network : {"fair", "ideal"})
      EXPECT_NEAR(static_cast<double>(play(moved, t, network).end.ps), static_cast<double>(play(s, t, network).end.ps), static_cast<double>(s.phases.size())) << network << ", run " << run;
  }
}

}  // namespace
}  // namespace epsim::testing
