#pragma once
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "policies/schedule.h"

namespace epsim::lowering {

/// A kept copy of a token, in choice order.
struct Copy {
  Slot slot;
  Rank rank;
  Node node;
  float weight;
};

/// A phase of an exchange before anything is counted. Kernel phases are the experts and, where the layer has one, the shared expert.
struct Step {
  Phase::Kind kind;
  Stage stage;
  std::string name;
  std::vector<int> after;
};

/// One token as a walk sees it. A walk says for one token which rows go where, to a sink that writes them down. How many rows that makes follows from fewer numbers (`HomeCounts`), and is
/// said apart from it: rows that are written down are checked against it.
template <class Sink>
struct Token {
  Rank home;
  RowRef row;                     ///< its vector at home
  std::span<const Copy> copies;   ///< kept ones, in choice order
  std::span<const Term> shared;   ///< the shared expert's result at home, if the layer has one: the last term of the token's sum
  const Topology& topology;
  Sink& sink;
};

/// Room for the terms of one sum; walks keep one for each level of their tree, so that no memory is asked for per token.
using Terms = std::vector<Term>;

/// All that an exchange's row counts depend on, for the tokens of one home rank.
struct HomeCounts {
  Rank home;
  std::int64_t tokens;                      ///< all of them
  std::int64_t shared;                      ///< those with a result of the shared expert: all or none
  std::span<const std::int64_t> copies;     ///< [R] kept copies
  std::span<const std::int64_t> reached;    ///< [R] tokens with a kept copy on the rank
  std::span<const std::int64_t> node_reached;  ///< [N] tokens with a kept copy on the node
  const Topology& topology;
};

/// Row counts by phase.
class Counter {
 public:
  Counter(const std::vector<Step>& steps, int ranks) : reduced_(steps.size(), std::vector<std::int64_t>(ranks)) {
    for (const Step& s : steps) rows_.emplace_back(s.kind == Phase::Kind::transfer ? ranks : 0, ranks);
  }
  void transfer(int phase, Rank from, Rank to, std::int64_t rows) { rows_[phase](from, to) += rows; }
  /// Sums of `terms` rows in all, giving `sums` rows.
  void reduce(int phase, Rank rank, std::int64_t terms, std::int64_t sums) { reduced_[phase][rank] += terms + sums; }
  Matrix<std::int64_t>& rows(int phase) { return rows_[phase]; }
  const Matrix<std::int64_t>& rows(int phase) const { return rows_[phase]; }
  const std::vector<std::int64_t>& reduced(int phase) const { return reduced_[phase]; }  ///< rows read and written, per rank

 private:
  std::vector<Matrix<std::int64_t>> rows_;
  std::vector<std::vector<std::int64_t>> reduced_;
};

/// Writes rows down for the wanted ranks.
class Recorder {
 public:
  Recorder(const std::vector<Step>& steps, int experts_step, int shared_step, bool shared_expert, const Plan& plan, const Counter& counts, const std::vector<bool>& wanted);
  RowRef transfer(int phase, Rank from, Rank to, RowRef in) {
    if (from == to) return in;
    const std::int64_t n = next_row_[phase](from, to)++;
    if (wanted_[from]) {
      RankRows::PhaseRows& p = rows_[from].phases[phase];
      ensure(p.send_first[to] + n < p.send_first[to + 1], "a transfer has the rows that were counted");
      p.send[static_cast<std::size_t>(p.send_first[to] + n)] = in;
    }
    return {1 + phase, wanted_[to] ? static_cast<std::int32_t>(rows_[to].phases[phase].receive_first[from] + n) : 0};
  }
  RowRef expert(const Copy& copy, RowRef in) {
    const std::int64_t n = next_input_[copy.slot]++;
    if (wanted_[copy.rank]) rows_[copy.rank].phases[experts_].input[static_cast<std::size_t>(n)] = in;
    return {1 + experts_, static_cast<std::int32_t>(n)};
  }
  RowRef reduce(int phase, Rank rank, std::span<const Term> terms) {
    if (wanted_[rank]) {
      RankRows::PhaseRows& p = rows_[rank].phases[phase];
      p.terms.insert(p.terms.end(), terms.begin(), terms.end());
      p.term_first.push_back(static_cast<std::int64_t>(p.terms.size()));
    }
    return {1 + phase, static_cast<std::int32_t>(next_sum_[phase][rank]++)};
  }
  /// Stops the program unless the rows written down are those that were counted, for every pair of ranks and every sum.
  void check(const Counter& counts) const;
  std::vector<RankRows> take() { return std::move(rows_); }

 private:
  int experts_;
  const std::vector<bool>& wanted_;
  std::vector<Matrix<std::int32_t>> next_row_;
  std::vector<std::int64_t> next_input_;                // [P], starts where the slot's rows start on its rank
  std::vector<std::vector<std::int64_t>> next_sum_;     // [phases][R]
  std::vector<RankRows> rows_;
};

/// Walks every token of the home ranks [begin, end) in order.
template <class Sink, class Walk>
void walk_tokens(const Plan& plan, const Topology& topology, int shared_step, bool shared_expert, int begin, int end, Sink& sink, Walk walk) {
  const int k = plan.routing.top_k;
  std::vector<Copy> of_slot(plan.placement.slots());
  for (Rank r : ids<Rank>(plan.ranks()))
    for (std::int32_t s = plan.placement.first_slot[r]; s < plan.placement.first_slot[r + 1]; ++s) of_slot[s] = {Slot(s), r, topology.node_of(r), 0};
  std::vector<Copy> copies(k);
  for (Rank home : ids<Rank>(end - begin)) {
    home = Rank(home + begin);
    std::int32_t row = 0;
    for (std::int64_t t = plan.routing.first_token[home]; t < plan.routing.first_token[home + 1]; ++t, ++row) {
      std::size_t n = 0;
      for (std::int64_t c = t * k; c < (t + 1) * k; ++c)
        if (const std::int32_t slot = plan.slot[c]; slot >= 0) copies[n] = of_slot[slot], copies[n++].weight = plan.routing.weight[c];
      const Term shared{{1 + shared_step, row}, 1};
      walk(Token<Sink>{home, {0, row}, {copies.data(), n}, {&shared, shared_expert ? 1U : 0U}, topology, sink});
    }
  }
}

/// Counts rows of all tokens: `count_home(home, counter)` adds those of one home rank.
template <class CountHome>
Counter count(const std::vector<Step>& steps, bool shared_expert, const Plan& plan, const Topology& topology, const CountHome& count_home) {
  const int ranks = plan.ranks();
  Counter counter(steps, ranks);
  std::vector<std::int64_t> copies(ranks);
  for (const Rank home : ids<Rank>(ranks)) {
    for (int r = 0; r < ranks; ++r) {
      const auto first = plan.copies.row(home).begin();
      copies[r] = std::accumulate(first + plan.placement.first_slot[r], first + plan.placement.first_slot[r + 1], std::int64_t{0});
    }
    const std::int64_t tokens = plan.routing.first_token[home + 1] - plan.routing.first_token[home];
    count_home(HomeCounts{home, tokens, shared_expert ? tokens : 0, copies, plan.reach.ranks.row(home), plan.reach.nodes.row(home), topology}, counter);
  }
  return counter;
}

/// Prices counted steps.
Schedule make_schedule(const std::vector<Step>& steps, int experts_step, int shared_step, const Plan& plan, Counter counts, const Pricing& pricing);

/// An exchange from its steps, the keys of its adding tree, its row counts and its walk. `experts_step` and `shared_step` are the kernel steps; the last step adds a token's result at home.
template <class CountHome, class Walk>
Exchange make_exchange(std::string_view summary, std::vector<Step> steps, int experts_step, int shared_step,
                       std::function<std::vector<std::int32_t>(const Plan&, const Topology&, Slot)> tree, CountHome count_home, Walk walk) {
  Exchange x;
  x.summary = summary;
  x.tree = std::move(tree);
  x.schedule = [=](const Plan& plan, const Topology& topology, const Pricing& pricing) {
    return make_schedule(steps, experts_step, shared_step, plan, count(steps, pricing.shared_ffn > 0, plan, topology, count_home), pricing);
  };
  x.rows = [=](const Plan& plan, const Topology& topology, bool shared_expert, const std::vector<bool>& wanted) {
    const Counter counts = count(steps, shared_expert, plan, topology, count_home);
    Recorder recorder(steps, experts_step, shared_step, shared_expert, plan, counts, wanted);
    walk_tokens(plan, topology, shared_step, shared_expert, 0, plan.ranks(), recorder, walk);
    recorder.check(counts);
    return recorder.take();
  };
  return x;
}

/// What copies are chosen and grouped by.
inline constexpr auto kAll = [](const Copy&) { return true; };
inline constexpr auto kRank = [](const Copy& c) { return c.rank; };
inline constexpr auto kNode = [](const Copy& c) { return c.node; };

/// Calls visit(key, each) for every group of copies with one key, in order of first appearance among those that `belongs` accepts; each(f) calls f on the group's copies in choice order.
template <class Belongs, class Key, class Visit>
void for_each_group(std::span<const Copy> copies, Belongs belongs, Key key, Visit visit) {
  // Copies of a token are few (k), so scanning beats sorting.
  for (std::size_t i = 0; i < copies.size(); ++i) {
    if (!belongs(copies[i])) continue;
    const auto mine = key(copies[i]);
    bool first = true;
    for (std::size_t j = 0; j < i && first; ++j) first = key(copies[j]) != mine;
    if (!first) continue;
    visit(mine, [&](auto&& f) {
      for (std::size_t j = i; j < copies.size(); ++j)
        if (key(copies[j]) == mine) f(copies[j]);
    });
  }
}

}  // namespace epsim::lowering
