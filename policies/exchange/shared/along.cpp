#include "policies/exchange/shared/along.h"

#include <memory>

namespace epsim::lowering {
namespace {

using Kind = Phase::Kind;

/// Sends single rows along ways.
class Carrier {
 public:
  template <class Sink>
  RowRef send(const Token<Sink>& token, const Way& way, Rank from, Rank to, RowRef row) {
    way.journey->find(from, to, hops_);
    for (const Journey::Hop& hop : hops_) row = token.sink.transfer(way.step(token.chunk, hop), hop.from, hop.to, row);
    return row;
  }

 private:
  std::vector<Journey::Hop> hops_;
};

/// Steps of both kinds of exchange.
struct Layout {
  Way out, back;
  int on_rank = -1, add = -1;

  Layout(Steps& steps, const std::shared_ptr<const Journey>& journey, Rows rows) {
    steps.needs_reach = rows == Rows::rank;
    const auto rounds = static_cast<int>(journey->rounds.size());
    out = steps.add_journey(journey, Stage::dispatch, [](int) { return std::vector<int>{}; });
    steps.add_kernels([&](int c) { return steps_from(out.first + c * rounds, rounds); });
    int last = steps.experts;
    if (rows == Rows::rank) last = on_rank = steps.add_like_experts(Kind::reduce, Stage::combine, "add on rank", [&](int c) { return std::vector{steps.like_experts(steps.experts, c)}; });
    back = steps.add_journey(journey, Stage::combine, [&](int c) { return std::vector{steps.like_experts(last, c)}; });
    add = steps.add({Kind::reduce, Stage::combine, "add", join({{steps.shared}, steps_from(last, steps.experts_steps()), steps_from(back.first, steps.chunks * rounds)})});
  }
};

auto copies_alone(const std::shared_ptr<const Journey>& journey, Chunks chunks) {
  Steps steps(chunks);
  const Layout at(steps, journey, Rows::copy);
  const auto count_home = [at](const HomeCounts& h, Counter& counter) {
    std::int64_t copies = 0;
    for (const Rank r : ids<Rank>(h.topology.ranks())) {
      const std::int64_t rows = h.copies[r] + (h.empty_rows.empty() ? 0 : h.empty_rows[r]);
      counter.carry(at.out, h.home, r, rows);
      counter.carry(at.back, r, h.home, rows);
      copies += h.copies[r];
    }
    counter.reduce(at.add, h.home, copies + h.shared, h.tokens);
  };
  const auto walk = [at, carrier = Carrier(), terms = Terms()](const auto& token) mutable {
    terms.clear();
    for (const Copy& c : token.copies) {
      const RowRef result = token.sink.expert(token.chunk, c, carrier.send(token, at.out, token.home, c.rank, token.row));
      terms.push_back({carrier.send(token, at.back, c.rank, token.home, result), c.weight});
    }
    // What empty rows hold is never read: the token's own row stands for it.
    for (const Rank r : ids<Rank>(static_cast<std::int64_t>(token.empty_rows.size())))
      for (std::int64_t n = 0; n < token.empty_rows[r]; ++n) carrier.send(token, at.back, r, token.home, carrier.send(token, at.out, token.home, r, token.row));
    terms.insert(terms.end(), token.shared.begin(), token.shared.end());
    token.sink.reduce(at.add, token.home, terms);
  };
  return Lowered{std::move(steps), count_home, walk};
}

auto added_on_ranks(const std::shared_ptr<const Journey>& journey, Chunks chunks) {
  Steps steps(chunks);
  const Layout at(steps, journey, Rows::rank);
  const auto count_home = [at, like_experts = steps.like_experts](const HomeCounts& h, Counter& counter) {
    std::int64_t rows = 0;
    for (const Rank r : ids<Rank>(h.topology.ranks())) {
      counter.carry(at.out, h.home, r, h.reached[r]);
      counter.reduce(like_experts(at.on_rank, h.chunk), r, h.copies[r], h.reached[r]);
      counter.carry(at.back, r, h.home, h.reached[r]);
      rows += h.reached[r];
    }
    counter.reduce(at.add, h.home, rows + h.shared, h.tokens);
  };
  const auto walk = [at, like_experts = steps.like_experts, carrier = Carrier(), terms = Terms(), mine = Terms()](const auto& token) mutable {
    terms.clear();
    for_each_group(token.copies, kAll, kRank, [&](Rank rank, auto each) {
      const RowRef in = carrier.send(token, at.out, token.home, rank, token.row);
      mine.clear();
      each([&](const Copy& c) { mine.push_back({token.sink.expert(token.chunk, c, in), c.weight}); });
      terms.push_back({carrier.send(token, at.back, rank, token.home, token.sink.reduce(like_experts(at.on_rank, token.chunk), rank, mine)), 1});
    });
    terms.insert(terms.end(), token.shared.begin(), token.shared.end());
    token.sink.reduce(at.add, token.home, terms);
  };
  return Lowered{std::move(steps), count_home, walk};
}

}  // namespace

Rows read_dedup(Params& p) {
  return p.choice("dedup", "send a token once for each copy (none) or once for each rank that holds its experts (rank)", {"none", "rank"}, "none") == "rank" ? Rows::rank : Rows::copy;
}

Exchange along(std::string_view summary, std::function<Journey(const Topology&)> journey, Rows rows, Chunks chunks) {
  Exchange x;
  x.dispatch_row_for = x.combine_row_for = rows == Rows::rank ? RowFor::rank : RowFor::copy;
  x.summary = summary;
  x.journey = journey;
  const auto made = [journey](const Topology& topology) { return std::make_shared<const Journey>(journey(topology)); };
  if (rows == Rows::rank) {
    x.tree = [](const Plan&, const Topology&, Rank, Rank at) { return std::vector<std::int32_t>{at}; };
    lower_by(x, [made, chunks](const Topology& topology) { return added_on_ranks(made(topology), chunks); });
  } else {
    x.tree = [](const Plan&, const Topology&, Rank, Rank) { return std::vector<std::int32_t>{}; };
    lower_by(x, [made, chunks](const Topology& topology) { return copies_alone(made(topology), chunks); });
  }
  return x;
}

Journey straight(std::int64_t rows_per_message, bool one_sided) {
  return {{{}}, rows_per_message, one_sided, [](Rank s, Rank) { return Journey::LastHop{0, s}; }};
}

}  // namespace epsim::lowering
