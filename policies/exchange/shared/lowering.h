#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/parallel.h"
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

/// One token as a walk sees it. A walk says for one token which rows go where; it is written once and played twice, by a sink that counts rows and by one that writes them down,
/// so counts and rows cannot disagree.
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

/// Counts rows. Refs mean nothing to it.
class Counter {
 public:
  Counter(const std::vector<Step>& steps, int ranks) : reduced_(steps.size(), std::vector<std::int64_t>(ranks)) {
    for (const Step& s : steps) rows_.emplace_back(s.kind == Phase::Kind::transfer ? ranks : 0, ranks);
  }
  RowRef transfer(int phase, Rank from, Rank to, RowRef) { return ++rows_[phase](from, to), RowRef{}; }
  RowRef expert(const Copy&, RowRef) { return {}; }
  RowRef reduce(int phase, Rank rank, std::span<const Term> terms) { return reduced_[phase][rank] += static_cast<std::int64_t>(terms.size()) + 1, RowRef{}; }
  void add(const Counter& o) {
    for (std::size_t p = 0; p < rows_.size(); ++p) {
      for (std::size_t i = 0; i < rows_[p].cells.size(); ++i) rows_[p].cells[i] += o.rows_[p].cells[i];
      for (std::size_t r = 0; r < reduced_[p].size(); ++r) reduced_[p][r] += o.reduced_[p][r];
    }
  }
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

/// Counts rows of all tokens, in parallel over blocks of home ranks. Integer counts: their sum does not depend on the blocks.
template <class Walk>
Counter count(const std::vector<Step>& steps, int shared_step, bool shared_expert, const Plan& plan, const Topology& topology, const Walk& walk) {
  const int ranks = plan.ranks();
  const int blocks = std::clamp(thread_count(), 1, ranks);
  std::vector<Counter> counters(blocks, Counter(steps, ranks));
  parallel_for(blocks, [&](std::int64_t b) {
    walk_tokens(plan, topology, shared_step, shared_expert, static_cast<int>(b * ranks / blocks), static_cast<int>((b + 1) * ranks / blocks), counters[b], walk);
  });
  for (int b = 1; b < blocks; ++b) counters[0].add(counters[b]);
  return std::move(counters[0]);
}

/// Prices counted steps.
Schedule make_schedule(const std::vector<Step>& steps, int experts_step, int shared_step, const Plan& plan, Counter counts, const Pricing& pricing);

/// An exchange from its steps, the keys of its adding tree and its walk. `experts_step` and `shared_step` are the kernel steps; the last step adds a token's result at home.
template <class Walk>
Exchange make_exchange(std::string_view summary, std::vector<Step> steps, int experts_step, int shared_step,
                       std::function<std::vector<std::int32_t>(const Plan&, const Topology&, Slot)> tree, Walk walk) {
  Exchange x;
  x.summary = summary;
  x.tree = std::move(tree);
  x.schedule = [=](const Plan& plan, const Topology& topology, const Pricing& pricing) {
    return make_schedule(steps, experts_step, shared_step, plan, count(steps, shared_step, pricing.shared_ffn > 0, plan, topology, walk), pricing);
  };
  x.rows = [=](const Plan& plan, const Topology& topology, bool shared_expert, const std::vector<bool>& wanted) {
    const Counter counts = count(steps, shared_step, shared_expert, plan, topology, walk);
    Recorder recorder(steps, experts_step, shared_step, shared_expert, plan, counts, wanted);
    walk_tokens(plan, topology, shared_step, shared_expert, 0, plan.ranks(), recorder, walk);
    return recorder.take();
  };
  return x;
}

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
