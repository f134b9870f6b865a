#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "policies/schedule.h"

namespace epsim::lowering {

/// A kept copy of a token, in choice order, and last the visit for its shared expert, if another rank computes that.
struct Copy {
  Slot slot;  ///< invalid for a visit
  Rank rank;
  Node node;
  float weight;
};

/// A phase of an exchange before anything is counted.
struct Step {
  Phase::Kind kind;
  Stage stage;
  std::string name;
  std::vector<int> after;
  std::vector<int> after_sent = {};
  std::int64_t rows_per_message = 0;
  bool one_sided = false;
};

/// A journey whose rounds are steps of an exchange, one way.
struct Way {
  std::shared_ptr<const Journey> journey;
  int first = 0;   ///< the first round's step, of the first chunk
  int number = 0;  ///< in `Steps::ways`

  int step(int chunk, const Journey::Hop& hop) const { return first + chunk * static_cast<int>(journey->rounds.size()) + hop.round; }
};

/// How the tokens of a home rank are cut in contiguous parts, as equal as they can be, that travel in steps of their own: one hop of a part goes beside an earlier hop of the next.
struct Chunks {
  int count = 1;
  bool experts = false;  ///< experts compute a part when it has come, reading their weights for each; otherwise they wait for all parts
};

/// Where chunk c's step is among those added like experts, the first of which is `first`. Walks keep a copy.
struct LikeExperts {
  bool by_chunk = false;  ///< a step a chunk; else one for all

  int operator()(int first, int chunk) const { return by_chunk ? first + chunk : first; }
};

/// The steps of an exchange, added in an order that respects `after`. The last sum waits for all chunks.
struct Steps {
  explicit Steps(Chunks cut = {}) : chunks(cut.count), like_experts{cut.experts} {}

  std::vector<Step> list;
  int experts = -1, shared = -1;  ///< the kernel steps, of experts the first chunk's; the shared expert's is idle where the layer has none
  int chunks;
  LikeExperts like_experts;
  bool needs_reach = false;       ///< whether the counts ask for `reached`, which costs a look at every token

  int add(Step step);
  /// One step a chunk, `after(chunk)` each; a chunk's transfer waits until the chunk before is sent. Gives the first; chunk c's is c behind it.
  int add_chunks(Phase::Kind kind, Stage stage, const std::string& name, const std::function<std::vector<int>(int chunk)>& after);
  std::vector<Way> ways;
  /// One step a round of a journey and chunk, a chunk's after `after(chunk)`.
  Way add_journey(std::shared_ptr<const Journey> journey, Stage stage, const std::function<std::vector<int>(int chunk)>& after);
  /// The shared expert's kernel and the experts': theirs wait for `after(chunk)`, each chunk's for its own or all for all. A rank's own tokens are the former's; tokens that visit it for the shared expert come with the
  /// dispatch, and are the last call of the latter.
  void add_kernels(const std::function<std::vector<int>(int chunk)>& after);
  /// A step, or one a chunk where experts compute chunk by chunk.
  int add_like_experts(Phase::Kind kind, Stage stage, const std::string& name, const std::function<std::vector<int>(int chunk)>& after);
  int experts_steps() const { return like_experts.by_chunk ? chunks : 1; }  ///< how many those are
};
/// first, first + 1 ... : `count` of them.
std::vector<int> steps_from(int first, int count);
/// All of several lists.
std::vector<int> join(std::initializer_list<std::vector<int>> lists);

/// One token as a walk sees it. A walk says for one token which rows go where, to a sink that writes them down. How many rows that makes follows from fewer numbers (`HomeCounts`), and is
/// said apart from it: rows that are written down are checked against it.
template <class Sink>
struct Token {
  Rank home;
  int chunk;
  RowRef row;                     ///< its vector at home
  std::span<const Copy> copies;   ///< kept ones, in choice order, and then the visit for the shared expert
  std::span<const std::int64_t> empty_rows;  ///< [R] with a home rank's last token: rows with nothing in them that go to each rank and back; where there are none, and with other tokens, empty
  std::span<const Term> shared;   ///< the shared expert's result at home, if it is computed there: the last term of the token's sum
  const Topology& topology;
  Sink& sink;
};

/// Room for the terms of one sum; walks keep one for each level of their tree, so that no memory is asked for per token.
using Terms = std::vector<Term>;

/// All that an exchange's row counts depend on, for one chunk of the tokens of one home rank.
struct HomeCounts {
  Rank home;
  int chunk;
  std::int64_t first;                       ///< the first of them
  std::int64_t tokens;                      ///< all of them
  std::int64_t shared;                      ///< those whose shared expert is computed at home
  std::span<const std::int64_t> copies;     ///< [R] kept copies, visits for the shared expert among them
  std::span<const std::int64_t> empty_rows; ///< [R] rows with nothing in them, which travel with the last chunk; empty: none
  std::span<const std::int64_t> reached;    ///< [R] tokens with any of these on the rank; empty unless `Steps::needs_reach`
  std::span<const std::int64_t> node_reached;  ///< [N] tokens with any of these on the node; likewise
  const Plan& plan;
  const Topology& topology;
};

/// Row counts by step.
class Counter {
 public:
  Counter(const Steps& steps, int ranks) : ways_(steps.ways), carried_(ways_.size(), Matrix<std::int64_t>(ranks, ranks)), terms_(steps.list.size()), sums_(steps.list.size()) {
    for (std::size_t p = 0; p < steps.list.size(); ++p) {
      rows_.emplace_back(steps.list[p].kind == Phase::Kind::transfer ? ranks : 0);
      if (steps.list[p].kind == Phase::Kind::reduce) terms_[p].resize(ranks), sums_[p].resize(ranks);
    }
  }
  void transfer(int step, Rank from, Rank to, std::int64_t rows) { rows_[step].add(from, to, rows); }
  /// Rows along a way; they are counted on its hops when all of a chunk are known.
  void carry(const Way& way, Rank from, Rank to, std::int64_t rows) { carried_[static_cast<std::size_t>(way.number)](from, to) += rows; }
  void end_chunk(int chunk);
  /// Sums of `terms` rows in all, giving `sums` rows.
  void reduce(int step, Rank rank, std::int64_t terms, std::int64_t sums) { terms_[step][rank] += terms, sums_[step][rank] += sums; }
  RowTable rows(int step) const { return rows_[step].table(); }
  std::int64_t terms(int step, Rank rank) const { return terms_[step][rank]; }
  const std::vector<std::int64_t>& sums(int step) const { return sums_[step]; }

 private:
  std::vector<Way> ways_;
  std::vector<Matrix<std::int64_t>> carried_;            // [ways] of this chunk: [source][destination]
  std::vector<RowCounts> rows_;                          // [steps]
  std::vector<std::vector<std::int64_t>> terms_, sums_;  // [steps][R], of reduces
};

/// Writes rows down for the wanted ranks.
class Recorder {
 public:
  Recorder(const Steps& steps, bool shared_expert, const Plan& plan, const Counter& counts, const std::vector<bool>& wanted);
  RowRef transfer(int step, Rank from, Rank to, RowRef in) {
    if (from == to) return in;
    const std::int64_t message = tables_[step].find(from, to);
    ensure(message >= 0, "a transfer has the rows that were counted");
    Ends& ends = ends_[step][static_cast<std::size_t>(message)];
    ensure(ends.next < tables_[step].all()[static_cast<std::size_t>(message)].rows, "a transfer has the rows that were counted");
    const std::int64_t n = ends.next++;
    if (wanted_[from]) rows_[from].phases[step].send[static_cast<std::size_t>(ends.sent + n)] = in;
    return {1 + step, wanted_[to] ? static_cast<std::int32_t>(ends.received + n) : 0};
  }
  RowRef expert(int chunk, const Copy& copy, RowRef in) {
    const int step = like_experts_(experts_, chunk);
    const std::int64_t n = next_input_(like_experts_(0, chunk), copy.slot.valid() ? copy.slot.value : slots_ + copy.rank)++;
    if (wanted_[copy.rank]) rows_[copy.rank].phases[step].input[static_cast<std::size_t>(n)] = in;
    return {1 + step, static_cast<std::int32_t>(n)};
  }
  RowRef reduce(int step, Rank rank, std::span<const Term> terms) {
    if (wanted_[rank]) {
      RankRows::PhaseRows& p = rows_[rank].phases[step];
      p.terms.insert(p.terms.end(), terms.begin(), terms.end());
      p.term_first.push_back(static_cast<std::int64_t>(p.terms.size()));
    }
    return {1 + step, static_cast<std::int32_t>(next_sum_[step][rank]++)};
  }
  /// Stops the program unless the rows written down are those that were counted, for every pair of ranks and every sum.
  void check(const Counter& counts) const;
  std::vector<RankRows> take() { return std::move(rows_); }

 private:
  /// Of one message: its next row, and where its rows begin at either end.
  struct Ends {
    std::int64_t next = 0, sent = 0, received = 0;
  };
  int experts_, slots_;
  LikeExperts like_experts_;
  const std::vector<bool>& wanted_;
  std::vector<RowTable> tables_;                     // [steps]
  std::vector<std::vector<Ends>> ends_;              // [steps][messages]
  Matrix<std::int64_t> next_input_;                  // [experts' steps][P + R], starts where the rows of a slot, or of a rank's visitors, start on the rank
  std::vector<std::vector<std::int64_t>> next_sum_;  // [steps][R]
  std::vector<RankRows> rows_;
};

/// Walks every token in order.
template <class Sink, class Walk>
void walk_tokens(const Plan& plan, const Topology& topology, const Steps& steps, bool shared_expert, Sink& sink, Walk walk) {
  const int k = plan.routing.top_k;
  std::vector<Copy> of_slot(plan.placement.slots());
  for (Rank r : ids<Rank>(plan.ranks()))
    for (std::int32_t s = plan.placement.first_slot[r]; s < plan.placement.first_slot[r + 1]; ++s) of_slot[s] = {Slot(s), r, topology.node_of(r), 0};
  std::vector<Copy> copies(static_cast<std::size_t>(k) + 1);
  for (const Rank home : ids<Rank>(plan.ranks())) {
    std::int32_t row = 0, shared_row = 0;
    int chunk = 0;
    const std::int64_t first = plan.routing.first_token[home], tokens = plan.routing.first_token[home + 1] - first;
    for (std::int64_t t = first; t < first + tokens; ++t, ++row) {
      while (row >= chunk_begin(tokens, chunk + 1, steps.chunks)) ++chunk;
      std::size_t n = 0;
      for (std::int64_t c = t * k; c < (t + 1) * k; ++c)
        if (const std::int32_t slot = plan.slot[c]; slot >= 0) copies[n] = of_slot[slot], copies[n++].weight = plan.routing.weight[c];
      const Rank computes = !shared_expert ? Rank() : plan.shared_rank.empty() ? home : plan.shared_rank[static_cast<std::size_t>(t)];
      if (computes.valid() && computes != home) copies[n++] = {Slot(), computes, topology.node_of(computes), 1};
      const Term shared{{1 + steps.shared, shared_row}, 1};
      const bool with_empty = t + 1 == first + tokens && plan.empty_rows.rows > 0;
      walk(Token<Sink>{home, chunk, {0, row}, {copies.data(), n}, with_empty ? plan.empty_rows.row(home) : std::span<const std::int64_t>(), {&shared, computes == home ? 1U : 0U}, topology, sink});
      shared_row += computes == home;
    }
  }
}

/// Counts rows of all tokens: `count_home(home counts, counter)` adds those of one chunk of one home rank.
template <class CountHome>
Counter count(const Steps& steps, bool shared_expert, const Plan& plan, const Topology& topology, CountHome count_home) {
  const Reach of_chunks = steps.needs_reach && steps.chunks > 1 ? reach_of(plan, topology, steps.chunks) : Reach{};
  const Reach& reach = steps.chunks > 1 ? of_chunks : plan.reach;
  Matrix<std::int64_t> copies = copies_by_rank(plan, steps.chunks);
  const Matrix<std::int64_t> visits = visits_by_rank(plan, steps.chunks);
  ensure(shared_expert || visits.rows == 0, "only a layer with a shared expert has visits for it");
  for (std::size_t i = 0; i < visits.cells.size(); ++i) copies.cells[i] += visits.cells[i];
  Counter counter(steps, plan.ranks());
  for (int chunk = 0; chunk < steps.chunks; ++chunk) {
    for (const Rank home : ids<Rank>(plan.ranks())) {
      const std::int64_t row = std::int64_t{home} * steps.chunks + chunk, all = plan.routing.first_token[home + 1] - plan.routing.first_token[home];
      const std::int64_t tokens = chunk_begin(all, chunk + 1, steps.chunks) - chunk_begin(all, chunk, steps.chunks);
      std::int64_t shared = shared_expert ? tokens : 0;
      if (visits.rows > 0)
        for (const std::int64_t n : visits.row(row)) shared -= n;
      HomeCounts counts{home, chunk, plan.routing.first_token[home] + chunk_begin(all, chunk, steps.chunks), tokens, shared, copies.row(row), {}, {}, {}, plan, topology};
      if (plan.empty_rows.rows > 0 && chunk + 1 == steps.chunks) counts.empty_rows = plan.empty_rows.row(home);
      if (steps.needs_reach) counts.reached = reach.ranks.row(row), counts.node_reached = reach.nodes.row(row);
      count_home(counts, counter);
    }
    counter.end_chunk(chunk);
  }
  return counter;
}

/// Prices counted steps.
Schedule make_schedule(const Steps& steps, const Plan& plan, const Counter& counts, const Pricing& pricing);

/// What an exchange is on one topology: its steps, the last of which adds a token's result at home, its row counts and its walk.
template <class CountHome, class Walk>
struct Lowered {
  Steps steps;
  CountHome count_home;
  Walk walk;
};
template <class CountHome, class Walk>
Lowered(Steps, CountHome, Walk) -> Lowered<CountHome, Walk>;

/// Fills in how an exchange lowers a plan: `lower(topology)` gives its Lowered.
template <class Lower>
void lower_by(Exchange& x, Lower lower) {
  x.schedule = [lower](const Plan& plan, const Topology& topology, const Pricing& pricing) {
    const auto lowered = lower(topology);
    return make_schedule(lowered.steps, plan, count(lowered.steps, pricing.shared_ffn > 0, plan, topology, lowered.count_home), pricing);
  };
  x.rows = [lower](const Plan& plan, const Topology& topology, bool shared_expert, const std::vector<bool>& wanted) {
    const auto lowered = lower(topology);
    const Counter counts = count(lowered.steps, shared_expert, plan, topology, lowered.count_home);
    Recorder recorder(lowered.steps, shared_expert, plan, counts, wanted);
    walk_tokens(plan, topology, lowered.steps, shared_expert, recorder, lowered.walk);
    recorder.check(counts);
    return recorder.take();
  };
}

/// The settings `chunks` and, of an exchange of several hops, `chunk_experts`. Exchanges of one hop have nothing but their experts to overlap with.
Chunks read_chunks(Params& p, bool several_hops);

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
