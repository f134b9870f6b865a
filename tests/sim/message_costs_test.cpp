// What messages cost beside their bytes, in closed form, on every network model. A star of 1 GB/s ports with 1 us a hop unless said: a message of b bytes alone takes b ns + 2 us.
#include <gtest/gtest.h>

#include "sim/network/shared/message_costs.h"
#include "tests/support/machines.h"
#include "tests/support/network_rig.h"
#include "tests/support/part_from_yaml.h"

namespace epsim::testing {
namespace {

constexpr Time kUs{1'000'000};
constexpr double kRate = 1e9, us = 1e-6, kPath = 2 * us;

MessageCosts costs_from(const std::string& settings) {
  Diagnostics problems;
  const Setting map = parse_yaml(std::make_shared<SourceText>(SourceText{"test.yaml", settings}));
  Params p(map, "network", problems);
  const MessageCosts costs = read_message_costs(p);
  p.finish();
  problems.check();
  return costs;
}

class MessageCost : public ::testing::TestWithParam<const char*> {
 protected:
  NetworkModel model(const std::string& settings) const { return with_message_costs(costs_from(settings), network_named(GetParam())); }
};
INSTANTIATE_TEST_SUITE_P(Networks, MessageCost, ::testing::Values("ideal", "fair"), [](const auto& i) { return std::string(i.param); });

TEST_P(MessageCost, OverheadIsPaidOnBothSides) {
  // LogGP: o + (bytes) G + L + o.
  NetworkRig rig(model("{overhead: 3us}"), star(2, kRate, kUs));
  rig.expect_arrival(rig.send(0, 0, 1, 5000), 3 * us + 5 * us + kPath + 3 * us);
}

TEST_P(MessageCost, AOneSidedMessageTakesNothingOfTheReceiver) {
  NetworkRig rig(model("{overhead: 3us}"), star(2, kRate, kUs));
  rig.expect_arrival(rig.send(0, 0, 1, 5000, 1, true), 3 * us + 5 * us + kPath);
}

TEST_P(MessageCost, ASenderSendsOneAfterAnother) {
  NetworkRig rig(model("{overhead: 3us}"), star(4, kRate, kUs));
  for (int d = 1; d < 4; ++d) rig.expect_arrival(rig.send(0, 0, d, 1000), d * 3 * us + 1 * us + kPath + 3 * us);
}

TEST_P(MessageCost, ASenderBeginsWithTheRankAfterIt) {
  NetworkRig rig(model("{overhead: 3us}"), star(4, kRate, kUs));
  for (const int d : {0, 1, 3}) rig.expect_arrival(rig.send(0, 2, d, 1000), ((d - 2 + 4) % 4) * 3 * us + 1 * us + kPath + 3 * us);
}

TEST_P(MessageCost, AReceiverTakesOneAfterAnother) {
  // All three come at once, for they share the receiver's port; of equal times the first is the lowest.
  NetworkRig rig(model("{overhead: 3us}"), star(4, kRate, kUs));
  for (int s = 1; s < 4; ++s) rig.expect_arrival(rig.send(0, s, 0, 1000), 3 * us + 3 * us + kPath + s * 3 * us);
}

TEST_P(MessageCost, AProcessorSendsBeforeItReceivesWhatComesMeanwhile) {
  // All to all of small messages: every processor is never idle from the first message to the last, n - 1 sends and n - 1 receives.
  for (const int n : {2, 3, 8}) {
    NetworkRig rig(model("{overhead: 10us}"), star(n, kRate, kUs));
    for (int s = 0; s < n; ++s)
      for (int d = 0; d < n; ++d)
        if (s != d) rig.send(0, s, d, 100);
    // For two the message has first to come.
    EXPECT_NEAR(*std::max_element(rig.arrivals().begin(), rig.arrivals().end()), n == 2 ? 20 * us + 0.1 * us + kPath : 2 * (n - 1) * 10 * us, 1e-17) << n;
  }
}

TEST_P(MessageCost, ALaterSendWaitsForTheProcessor) {
  // Rank 1 receives from 6 us to 9 us (3 us to send, 1 us of bytes, 2 us of path), and only then sends.
  NetworkRig rig(model("{overhead: 3us}"), star(3, kRate, kUs));
  rig.expect_arrival(rig.send(0, 0, 1, 1000), 9 * us);
  rig.expect_arrival(rig.send(7 * us, 1, 2, 1000), 9 * us + 9 * us);
}

TEST_P(MessageCost, MessagesOfANicKeepTheirDistance) {
  NetworkRig out(model("{gap: 3us}"), star(4, kRate, kUs)), in(model("{gap: 3us}"), star(4, kRate, kUs));
  for (int d = 1; d < 4; ++d) out.expect_arrival(out.send(0, 0, d, 1000), (d - 1) * 3 * us + 1 * us + kPath);
  // They come at once.
  for (int s = 1; s < 4; ++s) in.expect_arrival(in.send(0, s, 0, 1000), 3 * us + kPath + (s - 1) * 3 * us);
}

TEST_P(MessageCost, AMessageRateIsAGapTheOtherWayRound) {
  EXPECT_DOUBLE_EQ(costs_from("{message_rate: 250000}").gap, costs_from("{gap: 4us}").gap);
}

TEST_P(MessageCost, ASenderIsAsSlowAsTheSlowerOfProcessorAndNic) {
  NetworkRig nic(model("{overhead: 2us, gap: 3us}"), star(4, kRate, kUs)), processor(model("{overhead: 3us, gap: 2us}"), star(4, kRate, kUs));
  for (int d = 1; d < 4; ++d) {
    nic.expect_arrival(nic.send(0, 0, d, 1000), 2 * us + (d - 1) * 3 * us + 1 * us + kPath + 2 * us);
    processor.expect_arrival(processor.send(0, 0, d, 1000), d * 3 * us + 1 * us + kPath + 3 * us);
  }
}

TEST_P(MessageCost, MessagesInsideANodePassNoNic) {
  // Paths of two hops inside, four across.
  NetworkRig rig(model("{gap: 50us}"), tree(2, 2, kRate, kRate, kUs));
  rig.expect_arrival(rig.send(0, 0, 1, 1000), 1 * us + 2 * us);
  rig.expect_arrival(rig.send(10 * us, 0, 2, 1000), 11 * us + 4 * us);
  rig.expect_arrival(rig.send(20 * us, 0, 1, 1000), 21 * us + 2 * us);
  rig.expect_arrival(rig.send(30 * us, 0, 3, 1000), 61 * us + 4 * us);
}

TEST_P(MessageCost, ManyMessagesFollowEachOther) {
  // Eight messages of 4 us each. Where the processor is faster than the wire it costs the first message only, and the last at the receiver; else the wire costs the last message only.
  NetworkRig wire(model("{overhead: 1us}"), star(2, kRate, kUs)), processor(model("{overhead: 5us}"), star(2, kRate, kUs)), nic(model("{gap: 5us}"), star(2, kRate, kUs));
  wire.expect_arrival(wire.send(0, 0, 1, 32000, 8), 1 * us + 32 * us + kPath + 1 * us);
  processor.expect_arrival(processor.send(0, 0, 1, 32000, 8), 8 * 5 * us + 4 * us + kPath + 5 * us);
  nic.expect_arrival(nic.send(0, 0, 1, 32000, 8), 7 * 5 * us + 4 * us + kPath);
}

TEST_P(MessageCost, AReceiverHasTheMessagesOfAllSenders) {
  // Eight messages from each of four ranks, as far apart as their senders take (5 us): four times what the receiver can take in. It begins when the first have come and rests no more.
  NetworkRig rig(model("{overhead: 5us}"), star(5, kRate, kUs));
  for (int s = 1; s < 5; ++s) rig.send(0, s, 0, 8000, 8);
  EXPECT_NEAR(*std::max_element(rig.arrivals().begin(), rig.arrivals().end()), 5 * us + 1 * us + kPath + 4 * 8 * 5 * us, 1e-17);
}

TEST_P(MessageCost, ALongMessageAsksFirst) {
  NetworkRig rig(model("{rendezvous: 8kB}"), star(8, kRate, kUs));
  rig.expect_arrival(rig.send(0, 0, 1, 8000), 2 * kPath + 8 * us + kPath);
  rig.expect_arrival(rig.send(0, 2, 3, 7999), 7.999 * us + kPath);
  rig.expect_arrival(rig.send(0, 4, 5, 8000, 1, true), 8 * us + kPath);
  rig.expect_arrival(rig.send(0, 6, 7, 16000, 4), 16 * us + kPath);  // four short ones
}

TEST_P(MessageCost, AMessageOfHalfSizeHasHalfTheBandwidth) {
  NetworkRig rig(model("{half_size: 4kB}"), star(8, kRate, kUs));
  rig.expect_arrival(rig.send(0, 0, 1, 4000), 2 * 4 * us + kPath);
  rig.expect_arrival(rig.send(0, 2, 3, 36000), 36 * us / 0.9 + kPath);
  rig.expect_arrival(rig.send(0, 4, 5, 36000, 9), 2 * 36 * us + kPath);  // nine of half size
}

TEST_P(MessageCost, AMessageReachesTheShareOfItsSize) {
  NetworkRig rig(model("{efficiency: {4KiB: 0.2, 64KiB: 0.8}}"), star(8, kRate, kUs));
  const auto ns = [](double bytes) { return bytes / kRate; };
  rig.expect_arrival(rig.send(0, 0, 1, 1024), ns(1024) / 0.2 + kPath);        // below all sizes
  rig.expect_arrival(rig.send(0, 2, 3, 16384), ns(16384) / 0.5 + kPath);      // half way in the logarithm
  rig.expect_arrival(rig.send(0, 4, 5, 1048576), ns(1048576) / 0.8 + kPath);  // above all
  rig.expect_arrival(rig.send(0, 6, 7, 4 * 4096, 4), ns(4 * 4096) / 0.2 + kPath);
}

TEST(MessageCosts, AnEfficiencyThatMeansNothingIsAnError) {
  for (const char* wrong : {"{efficiency: 0.5}", "{efficiency: {}}", "{efficiency: {4: 0.5}}", "{efficiency: {4KiB: 0}}", "{efficiency: {4KiB: 1.5}}", "{efficiency: {4KiB: [1]}}", "{efficiency: {4KiB: 0.5, 4096B: 0.6}}",
                            "{efficiency: {0B: 0.5}}", "{efficiency: {4KiB: 0.5}, half_size: 1kB}"})
    EXPECT_THROW(costs_from(wrong), InputError) << wrong;
}

TEST_P(MessageCost, NothingSetChangesNothing) {
  Rng rng(9, Stream::test);
  const Topology t = random_machine(rng);
  NetworkRig plain(GetParam(), t), zero(model("{overhead: 0s, gap: 0s, rendezvous: 0B, half_size: 0B}"), t);
  for (int s = 0; s < t.ranks(); ++s)
    for (int d = 0; d < t.ranks(); ++d)
      if (s != d) {
        const double bytes = log_uniform(rng, 1, 1e6), at = rng.uniform() * 1e-4;
        plain.send(at, s, d, bytes, 3), zero.send(at, s, d, bytes, 3);
      }
  EXPECT_EQ(plain.arrivals(), zero.arrivals());
}

struct Sent {
  double at;
  int source, destination;
  double bytes;
  std::int64_t messages;
  bool one_sided;
};

std::vector<Sent> random_messages(Rng& rng, int ranks) {
  std::vector<Sent> all;
  for (int i = 0; i < 60; ++i) {
    const auto s = static_cast<int>(rng.below(ranks)), d = static_cast<int>((s + 1 + rng.below(ranks - 1)) % ranks);
    all.push_back({rng.below(3) ? 0 : rng.uniform() * 1e-3, s, d, std::floor(log_uniform(rng, 10, 1e7)), 1 + static_cast<std::int64_t>(rng.below(10)), rng.below(2) == 0});
  }
  return all;
}

// I6: costs only add: no message beats its bytes on the narrowest link, its latency and what its two processors do for it; nor do a rank's messages together beat its processor.
TEST_P(MessageCost, NoMessageBeatsItsUncontendedTime) {
  for (std::uint64_t run = 0; run < 200; ++run) {
    Rng rng(10, Stream::test, run);
    const Topology t = random_machine(rng);
    NetworkRig rig(model("{overhead: 2us, gap: 3us, rendezvous: 50kB, half_size: 1kB}"), t);
    const std::vector<Sent> sent = random_messages(rng, t.ranks());
    for (const Sent& m : sent) rig.send(m.at, m.source, m.destination, m.bytes, m.messages, m.one_sided);
    std::vector<double> work(t.ranks()), last(t.ranks());
    for (std::size_t i = 0; i < sent.size(); ++i) {
      const Sent& m = sent[i];
      const Rank s(m.source), d(m.destination);
      const double each = m.bytes / m.messages, asks = !m.one_sided && each >= 50e3 ? t.latency(s, d).seconds() + t.latency(d, s).seconds() : 0, receives = m.one_sided ? 0 : 2 * us;
      const double network = (m.bytes + 1000.0 * m.messages) / t.bandwidth(s, d), alone = m.at + 2 * us + asks + network + t.latency(s, d).seconds() + receives;
      ASSERT_GE(rig.arrivals()[i], alone * (1 - 1e-12)) << "run " << run << " message " << i;
      const double paced = m.at + 2 * us * m.messages + asks + network / m.messages + t.latency(s, d).seconds() + receives;
      ASSERT_GE(rig.arrivals()[i], paced * (1 - 1e-12)) << "run " << run << " message " << i;
      if (!m.one_sided) work[m.destination] += 2 * us * m.messages;
      last[m.destination] = std::max(last[m.destination], rig.arrivals()[i]);
    }
    for (std::size_t r = 0; r < work.size(); ++r) ASSERT_GE(last[r], work[r] * (1 - 1e-12)) << "run " << run << " rank " << r;
  }
}

// I10: rates x 2 and latencies and costs / 2 halve every time.
TEST_P(MessageCost, ScalesWithItsUnits) {
  Rng rng(11, Stream::test);
  NetworkRig slow(model("{overhead: 4us, gap: 6us, rendezvous: 50kB, half_size: 1kB}"), tree(2, 4, kRate, 2 * kRate, Time{2 * kUs.ps})),
      fast(model("{overhead: 2us, gap: 3us, rendezvous: 50kB, half_size: 1kB}"), tree(2, 4, 2 * kRate, 4 * kRate, kUs));
  for (const Sent& m : random_messages(rng, 8)) {
    slow.send(m.at, m.source, m.destination, m.bytes, m.messages, m.one_sided);
    fast.send(m.at / 2, m.source, m.destination, m.bytes, m.messages, m.one_sided);
  }
  for (std::size_t i = 0; i < slow.arrivals().size(); ++i) EXPECT_NEAR(fast.arrivals()[i], slow.arrivals()[i] / 2, slow.arrivals()[i] * 1e-9);
}

// I11
TEST(MessageCostSettings, SayWhatCannotBe) {
  EXPECT_NE(input_error([] { costs_from("{gap: 1us, message_rate: 1e6}"); }).find("the same thing"), std::string::npos);
  EXPECT_NE(input_error([] { costs_from("{message_rate: 0}"); }).find("above 0"), std::string::npos);
  EXPECT_NE(input_error([] { costs_from("{overhead: 3}"); }).find("a time with its unit"), std::string::npos);
  EXPECT_NE(input_error([] { part_from_yaml(builtin_networks(), "{ideal: {overhaed: 1us}}"); }).find("overhead"), std::string::npos);
}

TEST(MessageCostSettings, AreTheNetworks) {
  NetworkRig rig(part_from_yaml(builtin_networks(), "{ideal: {overhead: 3us}}"), star(2, kRate, kUs));
  rig.expect_arrival(rig.send(0, 0, 1, 5000), 3 * us + 5 * us + kPath + 3 * us);
}

}  // namespace
}  // namespace epsim::testing
