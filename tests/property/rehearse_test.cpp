// I7: a rehearsal in any legal order, of either pass, equals the serial reference bit for bit, for every exchange and wherever shared experts are computed (I12); I2: rows follow the exchange's own law.
#include "sim/rehearse.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <stdexcept>

#include "sim/moe/reference.h"
#include "tests/support/random_case.h"

namespace epsim {
namespace {

using testing::exchange_variants;
using testing::RandomCase;

constexpr std::int64_t kHidden = 8, kFfn = 16;

void load(int expert, ExpertBank& bank) { bank.add(expert, kFfn, make_expert_weights(1, 0, expert, kHidden, kFfn), ExpertBank::Passes::both); }

std::vector<float> vectors(std::int64_t tokens, std::uint64_t seed = 5) {
  std::vector<float> x(static_cast<std::size_t>(tokens * kHidden));
  for (std::int64_t t = 0; t < tokens; ++t) token_vector(seed, t, std::span(x).subspan(static_cast<std::size_t>(t * kHidden), kHidden));
  return x;
}

class Rehearse : public ::testing::Test {
 protected:
  Rehearse() : bank_(kHidden), scratch_(kHidden) {
    for (int e = kSharedExpert; e < 32; ++e) load(e, bank_);
  }
  ExpertBank bank_, scratch_;
};

TEST_F(Rehearse, ThousandRandomRehearsalsEqualTheReference) {
  std::int64_t dropped = 0, crossing = 0, replicas = 0, visiting = 0;
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    const RandomCase c = RandomCase::shared_or_not(seed);
    const std::string& text = exchange_variants()[seed % exchange_variants().size()];
    SCOPED_TRACE(fmt::format("seed {} {}", seed, text));
    const Exchange exchange = c.exchange(text);
    const std::vector<float> x = vectors(c.plan.routing.tokens());
    const Schedule schedule = exchange.schedule(c.plan, c.topology, c.pricing());
    const auto rows = exchange.rows(c.plan, c.topology, c.shared_expert, std::vector<bool>(static_cast<std::size_t>(schedule.ranks), true));
    Rng order(seed, Stream::test, 1);
    const std::vector<float> y = rehearse(c.plan, schedule, rows, bank_, x, order);
    const Reference expected = reference(c.plan, adding_order(exchange, c.plan, c.topology), c.shared_expert, x, scratch_, [&](int e) { load(e, scratch_); });
    ASSERT_EQ(y.size(), expected.y.size());
    ASSERT_EQ(std::memcmp(y.data(), expected.y.data(), y.size() * sizeof(float)), 0);
    for (std::size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], expected.y_plain[i], 1e-5 * (1 + std::abs(y[i])));
    dropped += c.plan.drops.choices;
    replicas += c.plan.placement.slots() - c.plan.routing.experts;
    for (const std::int64_t n : visits_by_rank(c.plan, 1).cells) visiting += n;
    for (const Phase& p : schedule.phases)
      for (const RowTable::Entry& e : p.rows.all()) crossing += e.rows;
  }
  EXPECT_GT(dropped, 1000);
  EXPECT_GT(replicas, 1000);
  EXPECT_GT(visiting, 1000);
  EXPECT_GT(crossing, 10000);
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) { return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0; }

TEST_F(Rehearse, BackwardRehearsalsEqualTheReference) {
  std::int64_t dropped = 0, replicas = 0, shared = 0;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const RandomCase c = RandomCase::shared_or_not(seed);
    const std::string& text = exchange_variants()[seed % exchange_variants().size()];
    SCOPED_TRACE(fmt::format("seed {} {}", seed, text));
    const Exchange exchange = c.exchange(text);
    const std::vector<float> x = vectors(c.plan.routing.tokens()), r = vectors(c.plan.routing.tokens(), 6);
    const Schedule schedule = exchange.schedule(c.plan, c.topology, c.pricing());
    const auto rows = exchange.rows(c.plan, c.topology, c.shared_expert, std::vector<bool>(static_cast<std::size_t>(schedule.ranks), true));
    Rng order(seed, Stream::test, 3);
    const PlanGradients got = rehearse_backward(c.plan, schedule, rows, c.shared_expert, bank_, x, r, order);
    const PlanGradients expected = reference_backward(c.plan, adding_order(exchange, c.plan, c.topology), c.shared_expert, x, r, scratch_, [&](int e) { load(e, scratch_); });
    ASSERT_TRUE(same_bits(got.x, expected.x));
    ASSERT_TRUE(same_bits(got.d_weight, expected.d_weight));
    ASSERT_EQ(got.experts.size(), expected.experts.size());
    for (std::size_t e = 0; e < got.experts.size(); ++e) ASSERT_TRUE(same_bits(got.experts[e], expected.experts[e])) << "expert " << e;
    ASSERT_TRUE(same_bits(got.shared, expected.shared));
    dropped += c.plan.drops.choices;
    replicas += c.plan.placement.slots() - c.plan.routing.experts;
    shared += c.shared_expert;
  }
  EXPECT_GT(dropped, 1000);
  EXPECT_GT(replicas, 1000);
  EXPECT_GT(shared, 50);
}

/// A hierarchical exchange whose experts do not wait for the rows that gateways forward.
struct ForgottenDependency {
  explicit ForgottenDependency(std::uint64_t seed) : c(seed), order(seed, Stream::test, 1) {
    const Exchange exchange = c.exchange("hierarchical");
    schedule = exchange.schedule(c.plan, c.topology, c.pricing());
    for (Phase& p : schedule.phases)
      if (p.name == "experts") p.after = {0};
    rows = exchange.rows(c.plan, c.topology, c.shared_expert, std::vector<bool>(static_cast<std::size_t>(schedule.ranks), true));
    x = vectors(c.plan.routing.tokens());
  }

  RandomCase c;
  Schedule schedule;
  std::vector<RankRows> rows;
  std::vector<float> x;
  Rng order;
};

// Rows are told apart by their tokens' numbers, so a row that comes too early cannot go unnoticed backwards either.
TEST_F(Rehearse, ForgottenDependencyStopsTheBackwardPass) {
  int caught = 0;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    ForgottenDependency f(seed);
    try {
      rehearse_backward(f.c.plan, f.schedule, f.rows, f.c.shared_expert, bank_, f.x, f.x, f.order);
    } catch (const std::logic_error&) {
      ++caught;
    }
  }
  EXPECT_GT(caught, 10);
}

// A schedule whose dependencies are too weak must show: rows that were not there yet are NaN.
TEST_F(Rehearse, ForgottenDependencyShowsAsNaN) {
  int caught = 0;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    ForgottenDependency f(seed);
    const std::vector<float> y = rehearse(f.c.plan, f.schedule, f.rows, bank_, f.x, f.order);
    caught += std::any_of(y.begin(), y.end(), [](float v) { return std::isnan(v); });
  }
  EXPECT_GT(caught, 10);
}

// I2, by brute force over tokens: what each exchange may send, counted without it.
TEST(ExchangeLaw, RowsMatchTokenLevelBruteForce) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const RandomCase c = RandomCase::shared_or_not(seed);
    const int ranks = c.plan.ranks();
    SCOPED_TRACE(fmt::format("seed {}", seed));
    Matrix<std::int64_t> copies(ranks, ranks), distinct(ranks, ranks), first_hop(ranks, ranks), second_hop(ranks, ranks);
    for (int home = 0; home < ranks; ++home)
      for (std::int64_t t = c.plan.routing.first_token[home]; t < c.plan.routing.first_token[home + 1]; ++t) {
        std::set<int> seen_ranks;
        std::set<std::pair<int, int>> hops1, hops2;
        for (const Rank to : c.destinations(Rank(home), t)) {
          ++copies(home, to);
          seen_ranks.insert(to);
          const auto node = c.topology.ranks_of(c.topology.node_of(to));
          const int via = c.topology.node_of(to) == c.topology.node_of(Rank(home)) ? home : static_cast<int>(node[static_cast<std::size_t>(c.topology.local_index(Rank(home))) % node.size()]);
          if (via == home)
            hops1.insert({home, to});
          else
            hops1.insert({home, via}), hops2.insert({via, to});
        }
        for (const int d : seen_ranks) ++distinct(home, d);
        for (const auto& [s, d] : hops1) ++first_hop(s, d);
        for (const auto& [s, d] : hops2) ++second_hop(s, d);
      }
    const auto off_diagonal = [&](Matrix<std::int64_t> m) {
      for (int r = 0; r < ranks; ++r) m(r, r) = 0;
      return m;
    };
    const auto transposed = [&](const Matrix<std::int64_t>& m) {
      Matrix<std::int64_t> t(ranks, ranks);
      for (int i = 0; i < ranks; ++i)
        for (int j = 0; j < ranks; ++j) t(j, i) = m(i, j);
      return t;
    };
    const auto sent = [&](const std::string& exchange, const std::string& phase) {
      const Schedule s = c.exchange(exchange).schedule(c.plan, c.topology, c.pricing());
      for (const Phase& p : s.phases)
        if (p.name == phase) return p.rows.dense();
      ADD_FAILURE() << "no phase " << phase;
      return Matrix<std::int64_t>();
    };
    EXPECT_EQ(sent("direct", "dispatch"), off_diagonal(copies));
    EXPECT_EQ(sent("direct", "combine"), transposed(off_diagonal(copies)));
    EXPECT_EQ(sent("{direct: {dedup: rank}}", "dispatch"), off_diagonal(distinct));
    EXPECT_EQ(sent("{direct: {dedup: rank}}", "combine"), transposed(off_diagonal(distinct)));
    EXPECT_EQ(sent("hierarchical", "dispatch"), off_diagonal(first_hop));
    EXPECT_EQ(sent("hierarchical", "forward"), off_diagonal(second_hop));
    // Combine is dispatch transposed: what was forwarded in a node is gathered there, what crossed crosses back.
    Matrix<std::int64_t> inside = off_diagonal(second_hop), across = off_diagonal(first_hop);
    for (int s = 0; s < ranks; ++s)
      for (int d = 0; d < ranks; ++d)
        if (c.topology.node_of(Rank(s)) == c.topology.node_of(Rank(d))) inside(s, d) += across(s, d), across(s, d) = 0;
    EXPECT_EQ(sent("hierarchical", "gather"), transposed(inside));
    EXPECT_EQ(sent("hierarchical", "combine"), transposed(across));
  }
}

// I2, by brute force over copies: rows of the exchanges that send every copy by itself, in rounds, along detours, or everywhere.
TEST(ExchangeLaw, RoundsAndDetoursMatchBruteForce) {
  for (std::uint64_t seed = 0; seed < 150; ++seed) {
    const RandomCase c = RandomCase::shared_or_not(seed);
    const int ranks = c.plan.ranks();
    SCOPED_TRACE(fmt::format("seed {}", seed));
    using Rows = std::map<std::string, Matrix<std::int64_t>>;  // by phase
    const auto sent = [&](const std::string& exchange) {
      Rows rows;
      for (const Phase& p : c.exchange(exchange).schedule(c.plan, c.topology, c.pricing()).phases)
        if (!p.rows.all().empty()) rows[p.name] = p.rows.dense();
      return rows;
    };
    Rows pairwise, ring, bruck, two_d, gathered;
    const auto add = [&](Rows& rows, const std::string& stage, int rounds, const std::string& name, int s, int d) {
      if (s == d) return;
      Matrix<std::int64_t>& m = rows[rounds == 1 ? stage : stage + " " + name];
      if (m.cells.empty()) m = {ranks, ranks};
      ++m(s, d);
    };
    int bits = 0;
    while (1 << bits < ranks) ++bits;
    for (int home = 0; home < ranks; ++home)
      for (std::int64_t t = c.plan.routing.first_token[home]; t < c.plan.routing.first_token[home + 1]; ++t) {
        for (int i = 1; i < ranks; ++i) {  // every token once round the ring, every sum once round it
          add(gathered, "all-gather", 0, std::to_string(i), (home + i - 1) % ranks, (home + i) % ranks);
          add(gathered, "reduce-scatter", 0, std::to_string(i), (home + i) % ranks, (home + i + 1) % ranks);
        }
        for (const int there : c.destinations(Rank(home), t)) {
          for (const auto& [stage, s, d] : {std::tuple("dispatch", home, there), std::tuple("combine", there, home)}) {
            const int distance = (d - s + ranks) % ranks;
            if (distance == 0) continue;
            add(pairwise, stage, ranks - 1, std::to_string((ranks & (ranks - 1)) == 0 ? s ^ d : distance), s, d);
            for (int step = 0; step < distance; ++step) add(ring, stage, ranks - 1, std::to_string(step + 1), (s + step) % ranks, (s + step + 1) % ranks);
            for (int bit = 0, at = s; bit < bits; ++bit)
              if (distance >> bit & 1) add(bruck, stage, bits, std::to_string(bit + 1), at, (at + (1 << bit)) % ranks), at = (at + (1 << bit)) % ranks;
            const auto mine = c.topology.ranks_of(c.topology.node_of(Rank(s)));
            const int via = c.topology.node_of(Rank(s)) == c.topology.node_of(Rank(d)) ? d : mine[static_cast<std::size_t>(c.topology.local_index(Rank(d))) % mine.size()].value;
            add(two_d, stage, 2, "inside nodes", s, via), add(two_d, stage, 2, "across nodes", via, d);
          }
        }
      }
    EXPECT_EQ(sent("pairwise"), pairwise);
    EXPECT_EQ(sent("ring"), ring);
    EXPECT_EQ(sent("bruck"), bruck);
    EXPECT_EQ(sent("hierarchical_2d"), two_d);
    EXPECT_EQ(sent("{allgather_reducescatter: {algorithm: ring}}"), gathered);
    EXPECT_EQ(sent("low_latency"), sent("direct"));
    EXPECT_EQ(sent("one_sided_nvlink"), sent("{direct: {dedup: rank}}"));
  }
}

// I2: the rows that move are the rows that were counted, at both ends.
TEST(ExchangeLaw, RecordedRowsEqualCountedRows) {
  for (std::uint64_t seed = 0; seed < 50; ++seed)
    for (const std::string& text : exchange_variants()) {
      const RandomCase c = RandomCase::shared_or_not(seed);
      const Exchange exchange = c.exchange(text);
      const Schedule schedule = exchange.schedule(c.plan, c.topology, c.pricing());
      const auto rows = exchange.rows(c.plan, c.topology, c.shared_expert, std::vector<bool>(static_cast<std::size_t>(schedule.ranks), true));
      for (std::size_t p = 0; p < schedule.phases.size(); ++p) {
        const Phase& phase = schedule.phases[p];
        Matrix<std::int64_t> sent(schedule.ranks, schedule.ranks), received = sent;
        for (const Rank r : ids<Rank>(schedule.ranks)) {
          for (const auto& m : rows[r].phases[p].sends) sent(r, m.other) += m.rows;
          for (const auto& m : rows[r].phases[p].receives) received(m.other, r) += m.rows;
        }
        if (phase.kind == Phase::Kind::transfer) {
          ASSERT_EQ(sent, phase.rows.dense());
          ASSERT_EQ(received, phase.rows.dense());
        }
        std::int64_t kernel_rows = 0, recorded = 0;
        for (const KernelCall& call : phase.kernels) kernel_rows += call.rows;
        for (const RankRows& r : rows) recorded += static_cast<std::int64_t>(r.phases[p].input.size());
        ASSERT_EQ(kernel_rows, recorded);
      }
    }
}

}  // namespace
}  // namespace epsim
