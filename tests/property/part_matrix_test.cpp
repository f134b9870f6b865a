// I7 and I11 over the whole catalogue: every router x capacity x exchange is refused with the reason that the documented rules give, or gives the serial reference's bits in both passes.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <set>

#include "sim/moe/reference.h"
#include "sim/mpi/execute.h"
#include "sim/mpi/layer_data.h"
#include "sim/rehearse.h"
#include "sim/run.h"
#include "tests/support/part_from_yaml.h"
#include "tests/support/part_matrix.h"

namespace epsim {
namespace {

using testing::Combination;
using testing::input_error;
using testing::part_forms;
using testing::PartForm;

const std::string kModels = EPSIM_SOURCE_DIR "/tests/support/models";

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) { return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0; }

class PartMatrix : public ::testing::Test {
 protected:
  PartMatrix() { setenv("EPSIM_THREADS", "1", 1); }  // the cases are too small to share out
  ~PartMatrix() override { unsetenv("EPSIM_THREADS"); }

  /// Plays a combination, or sees that it is refused.
  void check(const Combination& c) {
    SCOPED_TRACE(c.name());
    ++combinations_;
    const std::string reason = testing::refusal(c);
    if (!reason.empty()) {
      ++refused_;
      const std::string said = input_error([&] { c.read(kModels, catalogs_); });
      EXPECT_NE(said.find(reason), std::string::npos) << "not refused for: " << reason << "\nsaid: " << said;
      return;
    }
    Experiment e;
    const std::string said = input_error([&] { e = c.read(kModels, catalogs_); });
    ASSERT_EQ(said, "") << "refused, although no rule says so";
    const std::string against_backward = testing::backward_refusal(c), said_of_backward = input_error([&] {
      Diagnostics problems;
      check_backward(e, problems);
      problems.check();
    });
    ASSERT_EQ(said_of_backward.empty(), against_backward.empty()) << said_of_backward;
    ASSERT_NE(said_of_backward.find(against_backward), std::string::npos) << said_of_backward;

    Routing routing = e.routing();
    route_layer(e, 0, 0, 0, e.topology.ranks(), routing);
    const Plan plan = epsim::Run(e).plan(0, 0, std::move(routing));
    const Schedule schedule = e.exchange.schedule(plan, e.topology, execute_pricing(e));
    if (e.capacity.dense && c.exchange.part == "direct") check_dense(plan, schedule), ++dense_;
    const bool shared = e.model.shared_ffn > 0;
    const auto rows = e.exchange.rows(plan, e.topology, shared, std::vector<bool>(static_cast<std::size_t>(plan.ranks()), true));
    const std::vector<float> x = token_vectors(e, 0, plan.routing.tokens());
    const AddingOrder adding = adding_order(e.exchange, plan, e.topology);
    const ExpertBank& bank = experts(e);
    ExpertBank forth = bank, back = bank;  // the reference takes an expert out when it is done
    const auto loaded = [](int) {};
    Rng order(combinations_, Stream::test);
    const IdleBank idle = idle_bank(e, 0);
    const std::int64_t h = e.execute_hidden, k = plan.routing.top_k;
    std::vector<float> y = rehearse(plan, schedule, rows, bank, x, order);
    for (const Rank home : ids<Rank>(plan.ranks())) add_idle(idle, plan, home, of_home(plan, home, h, x), of_home(plan, home, h, y));
    ASSERT_TRUE(same_bits(y, reference(plan, adding, shared, x, forth, loaded, idle).y)) << "forwards";
    dropped_ += plan.drops.choices;
    for (std::size_t c = 0; c < plan.slot.size(); ++c)
      if (!plan.routing.computes(c)) ++(plan.routing.expert[c] == kNoExpert ? open_ : idle_);
    if (!against_backward.empty()) {
      ++forward_only_;
      return;
    }
    const std::vector<float> r = gradient_vectors(e, 0, 0, plan.routing.tokens());
    PlanGradients got = rehearse_backward(plan, schedule, rows, shared, bank, x, r, order);
    const PlanGradients expected = reference_backward(plan, adding, shared, x, r, back, loaded, idle);
    for (const Rank home : ids<Rank>(plan.ranks()))
      add_idle_backward(idle, plan, home, of_home(plan, home, h, x), of_home(plan, home, h, r), of_home(plan, home, h, got.x), of_home(plan, home, k, got.d_weight));
    ASSERT_TRUE(same_bits(got.x, expected.x)) << "dx";
    ASSERT_TRUE(same_bits(got.d_weight, expected.d_weight));
    ASSERT_TRUE(same_bits(got.shared, expected.shared));
    ASSERT_EQ(got.experts.size(), expected.experts.size());
    for (std::size_t i = 0; i < got.experts.size(); ++i) ASSERT_TRUE(same_bits(got.experts[i], expected.experts[i])) << "expert " << i;
  }

  /// Each rank sends and gets back its places of every expert, full or not, those of experts at home excepted.
  void check_dense(const Plan& plan, const Schedule& schedule) {
    for (const Stage stage : {Stage::dispatch, Stage::combine})
      for (const Rank home : ids<Rank>(plan.ranks())) {
        std::int64_t rows = plan.empty_rows(home, home), places = 0;
        for (std::int32_t s = plan.placement.first_slot[home]; s < plan.placement.first_slot[home + 1]; ++s) rows += plan.copies(home, s);
        for (const Phase& phase : schedule.phases)
          if (phase.kind == Phase::Kind::transfer && phase.stage == stage)
            for (const RowTable::Entry& entry : phase.rows.all()) rows += (stage == Stage::dispatch ? entry.source : entry.destination) == home ? entry.rows : 0;
        for (const std::int64_t limit : plan.limits.row(home.value)) places += limit;
        EXPECT_EQ(rows, places) << name_of(stage) << " of rank " << home;
      }
  }

  void say() const {
    std::cout << combinations_ << " combinations: " << combinations_ - refused_ << " legal, " << forward_only_ << " of them forwards only, and " << refused_ << " refused\n";
  }

  /// All experts, whose weights no part has a say in.
  const ExpertBank& experts(const Experiment& e) {
    for (int i = kSharedExpert; i < e.model.num_experts; ++i)
      if ((i >= 0 || e.model.shared_ffn > 0) && !bank_.holds(i)) load_expert(e, 0, i, bank_, ExpertBank::Passes::both);
    return bank_;
  }

  const Catalogs catalogs_ = builtin_catalogs();
  ExpertBank bank_{8};
  std::size_t combinations_ = 0, refused_ = 0, forward_only_ = 0;
  std::int64_t dropped_ = 0, open_ = 0, idle_ = 0, dense_ = 0;
};

TEST_F(PartMatrix, EveryRouterCapacityAndExchange) {
  const auto routers = first_forms(part_forms(catalogs_.router)), capacities = first_forms(part_forms(catalogs_.capacity)), exchanges = first_forms(part_forms(catalogs_.exchange));
  ASSERT_EQ(routers.size(), catalogs_.router.entries().size());
  ASSERT_EQ(capacities.size(), catalogs_.capacity.entries().size());
  ASSERT_EQ(exchanges.size(), catalogs_.exchange.entries().size());
  for (const PartForm& router : routers)
    for (const PartForm& capacity : capacities)
      for (const PartForm& exchange : exchanges) {
        ASSERT_NO_FATAL_FAILURE(check({router, capacity, exchange, 2, 2, 3}));
        ASSERT_NO_FATAL_FAILURE(check({router, capacity, exchange, 1, 1, 4}));
      }
  EXPECT_EQ(combinations_, 2 * routers.size() * capacities.size() * exchanges.size());
  // Of parts as they are by default: base needs one choice, gshard two, moge an even number, and one exchange a single node.
  const std::size_t pairs = capacities.size() * exchanges.size();
  EXPECT_EQ(refused_, pairs + (routers.size() - 1) * capacities.size() + 2 * pairs);
  EXPECT_GT(dropped_, 1000);
  EXPECT_GT(open_, 1000);
  EXPECT_GT(idle_, 1000);
  say();
}

// Every value of every choice and flag of a router with every one of a capacity; those of exchanges in turn.
TEST_F(PartMatrix, EveryFormOfRouterAndCapacity) {
  const auto routers = part_forms(catalogs_.router), capacities = part_forms(catalogs_.capacity), exchanges = part_forms(catalogs_.exchange);
  std::set<std::string> played;
  std::size_t turn = 0;
  for (const PartForm& router : routers)
    for (const PartForm& capacity : capacities) {
      const PartForm& exchange = exchanges[turn++ % exchanges.size()];
      Combination c{router, capacity, exchange, router.part == "base" ? 1 : 2, 2, 3};
      if (exchange.part == "one_sided_nvlink") c.nodes = 1, c.ranks_per_node = 4;
      ASSERT_NO_FATAL_FAILURE(check(c));
      if (testing::refusal(c).empty()) played.insert(exchange.yaml());
    }
  EXPECT_EQ(combinations_, routers.size() * capacities.size());
  EXPECT_EQ(played.size(), exchanges.size());
  EXPECT_GT(dense_, 5);
  say();
}

}  // namespace
}  // namespace epsim
