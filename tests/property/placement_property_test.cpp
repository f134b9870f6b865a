// Every placement policy of the catalog, whatever its settings are called, on random problems of all shapes: what it answers is legal and always the same.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "tests/support/random_problem.h"

namespace epsim {
namespace {

using testing::RandomProblem;

void expect_legal(const std::vector<Placement>& placements, const RandomProblem& c) {
  ASSERT_EQ(placements.size(), c.problem.counts.size());
  for (const Placement& p : placements) {
    p.check(c.problem.experts);
    ASSERT_EQ(p.ranks(), c.problem.ranks);
    for (const Rank r : ids<Rank>(c.problem.ranks))
      for (std::int32_t s = p.first_slot[static_cast<std::size_t>(r)]; s < p.first_slot[static_cast<std::size_t>(r) + 1]; ++s) ASSERT_EQ(p.rank_of(Slot(s)), r);
  }
}

void expect_same(const std::vector<Placement>& a, const std::vector<Placement>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t l = 0; l < a.size(); ++l) {
    EXPECT_EQ(a[l].expert_of_slot, b[l].expert_of_slot);
    EXPECT_EQ(a[l].first_slot, b[l].first_slot);
    EXPECT_EQ(a[l].slots_of_expert, b[l].slots_of_expert);
    EXPECT_EQ(a[l].share, b[l].share);
  }
}

/// The places of every problem with the settings of `yaml` ("" : the policy's own), if the policy takes them.
std::optional<std::vector<Placement>> place(const PlacementCatalog& catalog, const std::string& yaml, const RandomProblem& c, std::string& refusal) {
  const Shape shape = c.shape();
  PlacementPolicy policy;
  try {
    policy = testing::part_from_yaml(catalog, yaml, &shape);
  } catch (const InputError& e) {
    refusal = e.what();
    return {};
  }
  return policy.place(c.problem);  // what cannot be was to be refused above
}

/// The policies that can do without settings; one that plays back a file has its own test, and so has the oracle, which is for small cases and takes seconds for each.
std::vector<std::string> policies_of(const PlacementCatalog& catalog) {
  std::vector<std::string> names;
  for (const auto& entry : catalog.entries()) {
    Params listing;
    entry.make(listing, nullptr);
    if (std::ranges::none_of(listing.docs(), [](const ParamDoc& doc) { return doc.fallback.empty(); }) && entry.name != "least_load") names.push_back(entry.name);
  }
  return names;
}

/// The policy with so many slots (0: as many as it likes); one that searches tries few changes.
std::string yaml_of(const PlacementCatalog& catalog, const std::string& policy, int slots) {
  Params listing;
  catalog.find(policy)->make(listing, nullptr);
  const bool searches = std::ranges::any_of(listing.docs(), [](const ParamDoc& doc) { return doc.key == "moves"; });
  return fmt::format("{}: {{{}{}}}", policy, slots ? fmt::format("slots: {}, ", slots) : "", searches ? "moves: 30" : "");
}

TEST(PlacementProperty, CasesAreOfAllShapes) {
  int one_rank = 0, one_node = 0, one_expert = 0, more_ranks = 0, uneven_slots = 0, uneven_nodes = 0, silent = 0, in_force = 0, other_slots = 0, batches = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const RandomProblem c(seed);
    const Problem& p = c.problem;
    one_rank += p.ranks == 1;
    one_node += p.nodes == 1 && p.ranks > 1;
    one_expert += p.experts == 1;
    more_ranks += p.ranks > p.experts;
    uneven_slots += c.slots % p.ranks != 0;
    uneven_nodes += c.topology.ranks_of(Node(0)).size() * static_cast<std::size_t>(p.nodes) != static_cast<std::size_t>(p.ranks);
    silent += std::ranges::all_of(p.counts[0].cells, [](std::int64_t n) { return n == 0; });
    in_force += !p.previous.empty();
    other_slots += !p.previous.empty() && p.previous[0].slots() != c.slots;
    batches += p.batches[0].rows > 1;
  }
  for (const int n : {one_rank, one_node, one_expert, more_ranks, uneven_slots, uneven_nodes, silent, in_force, other_slots, batches}) EXPECT_GE(n, 4);
}

// I5
TEST(PlacementProperty, EveryPolicyIsLegalAndAlwaysTheSame) {
  const PlacementCatalog catalog = builtin_placements();
  std::map<std::string, int> answered;
  constexpr int kCases = 100;
  for (std::uint64_t seed = 0; seed < kCases; ++seed) {
    const RandomProblem c(seed);
    for (const std::string& policy : policies_of(catalog)) {
      for (const int slots : {0, c.slots, c.even_slots()}) {
        const std::string yaml = yaml_of(catalog, policy, slots);
        SCOPED_TRACE(yaml + " of case " + std::to_string(seed));
        std::string refusal;
        const std::optional<std::vector<Placement>> placements = place(catalog, yaml, c, refusal);
        if (!placements) {
          EXPECT_TRUE(slots > 0 || refusal.find("do not divide") != std::string::npos) << "its own settings were refused: " << refusal;
          continue;
        }
        ++answered[policy];
        expect_legal(*placements, c);
        for (const Placement& p : *placements)
          EXPECT_TRUE(slots == 0 || p.slots() <= slots) << "a policy may leave slots empty but not take more, as " << p.slots();
        setenv("EPSIM_THREADS", "1", 1);
        expect_same(*place(catalog, yaml, c, refusal), *placements);
        unsetenv("EPSIM_THREADS");
      }
    }
    if (HasFatalFailure()) return;
  }
  for (const std::string& policy : policies_of(catalog)) EXPECT_GE(answered[policy], kCases / 2) << policy << " refuses most shapes";
}

/// Without what a policy did not ask for.
TEST(PlacementProperty, SeesNoMoreThanItAsksFor) {
  const PlacementCatalog catalog = builtin_placements();
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    RandomProblem c(seed);
    c.problem.previous.clear();
    c.problem.speed.clear();
    c.problem.expert_seconds = nullptr;
    c.problem.batch_seconds = nullptr;
    c.problem.pricing = {};
    for (const std::string& name : policies_of(catalog)) {
      SCOPED_TRACE(name + " of case " + std::to_string(seed));
      Params listing;
      const PlacementPolicy::Sees sees = catalog.find(name)->make(listing, nullptr).sees;
      Problem p = c.problem;
      if (sees != PlacementPolicy::Sees::tokens) p.tokens.clear();
      if (sees == PlacementPolicy::Sees::counts) {
        p.topology = nullptr;
        p.batches.clear();
        for (std::size_t l = 0; l < p.counts.size(); ++l) {
          Matrix<std::int64_t> sum(1, p.experts);
          std::ranges::copy(p.loads(l), sum.cells.begin());
          p.counts[l] = std::move(sum);
        }
      }
      std::swap(c.problem, p);
      std::string refusal;
      if (const auto placements = place(catalog, yaml_of(catalog, name, 0), c, refusal)) expect_legal(*placements, c);
      std::swap(c.problem, p);
    }
  }
}

}  // namespace
}  // namespace epsim
