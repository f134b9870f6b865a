#include "policies/exchange/shared/along.h"

#include <memory>

namespace epsim::lowering {
namespace {

using Kind = Phase::Kind;

/// A journey whose rounds are steps of an exchange, one way.
class Way {
 public:
  Way(std::shared_ptr<const Journey> journey, int first) : journey_(std::move(journey)), first_(first) {}

  void count(Counter& counter, int chunk, Rank from, Rank to, std::int64_t rows) {
    if (from == to || rows == 0) return;
    find(from, to);
    for (const Journey::Hop& hop : hops_) counter.transfer(hop_step(first_, *journey_, chunk, hop), hop.from, hop.to, rows);
  }
  template <class Sink>
  RowRef send(const Token<Sink>& token, Rank from, Rank to, RowRef row) {
    if (from == to) return row;
    find(from, to);
    for (const Journey::Hop& hop : hops_) row = token.sink.transfer(hop_step(first_, *journey_, token.chunk, hop), hop.from, hop.to, row);
    return row;
  }

 private:
  void find(Rank from, Rank to) {
    hops_.clear();
    journey_->hops(from, to, hops_);
  }
  std::shared_ptr<const Journey> journey_;
  int first_;
  std::vector<Journey::Hop> hops_;
};

/// Steps of both kinds of exchange. `last` gives a rank's results: the experts, or the sum of its copies.
struct Layout {
  Steps steps;
  int dispatch, on_rank = -1, combine, add;

  Layout(const Journey& journey, Rows rows, int chunks) {
    steps.chunks = chunks;
    steps.needs_reach = rows == Rows::rank;
    const int transfers = chunks * static_cast<int>(journey.rounds.size());
    dispatch = steps.add_journey(journey, Stage::dispatch, {});
    steps.add_kernels(steps_from(dispatch, transfers));
    int last = steps.experts;
    if (rows == Rows::rank) last = on_rank = steps.add({Kind::reduce, Stage::combine, "add on rank", {steps.experts}});
    combine = steps.add_journey(journey, Stage::combine, {last});
    add = steps.add({Kind::reduce, Stage::combine, "add", join({{steps.shared, last}, steps_from(combine, transfers)})});
  }
};

auto copies_alone(const std::shared_ptr<const Journey>& journey, int chunks) {
  Layout at(*journey, Rows::copy, chunks);
  const auto count_home = [out = Way(journey, at.dispatch), back = Way(journey, at.combine), add = at.add](const HomeCounts& h, Counter& counter) mutable {
    std::int64_t copies = 0;
    for (const Rank r : ids<Rank>(h.topology.ranks())) {
      out.count(counter, h.chunk, h.home, r, h.copies[r]);
      back.count(counter, h.chunk, r, h.home, h.copies[r]);
      copies += h.copies[r];
    }
    counter.reduce(add, h.home, copies + h.shared, h.tokens);
  };
  const auto walk = [out = Way(journey, at.dispatch), back = Way(journey, at.combine), add = at.add, terms = Terms()](const auto& token) mutable {
    terms.clear();
    for (const Copy& c : token.copies) {
      const RowRef result = token.sink.expert(c, out.send(token, token.home, c.rank, token.row));
      terms.push_back({back.send(token, c.rank, token.home, result), c.weight});
    }
    terms.insert(terms.end(), token.shared.begin(), token.shared.end());
    token.sink.reduce(add, token.home, terms);
  };
  return Lowered{std::move(at.steps), count_home, walk};
}

auto added_on_ranks(const std::shared_ptr<const Journey>& journey, int chunks) {
  Layout at(*journey, Rows::rank, chunks);
  const auto count_home = [out = Way(journey, at.dispatch), back = Way(journey, at.combine), on_rank = at.on_rank, add = at.add](const HomeCounts& h, Counter& counter) mutable {
    std::int64_t rows = 0;
    for (const Rank r : ids<Rank>(h.topology.ranks())) {
      out.count(counter, h.chunk, h.home, r, h.reached[r]);
      counter.reduce(on_rank, r, h.copies[r], h.reached[r]);
      back.count(counter, h.chunk, r, h.home, h.reached[r]);
      rows += h.reached[r];
    }
    counter.reduce(add, h.home, rows + h.shared, h.tokens);
  };
  const auto walk = [out = Way(journey, at.dispatch), back = Way(journey, at.combine), on_rank = at.on_rank, add = at.add, terms = Terms(), mine = Terms()](const auto& token) mutable {
    terms.clear();
    for_each_group(token.copies, kAll, kRank, [&](Rank rank, auto each) {
      const RowRef in = out.send(token, token.home, rank, token.row);
      mine.clear();
      each([&](const Copy& c) { mine.push_back({token.sink.expert(c, in), c.weight}); });
      terms.push_back({back.send(token, rank, token.home, token.sink.reduce(on_rank, rank, mine)), 1});
    });
    terms.insert(terms.end(), token.shared.begin(), token.shared.end());
    token.sink.reduce(add, token.home, terms);
  };
  return Lowered{std::move(at.steps), count_home, walk};
}

}  // namespace

Rows read_dedup(Params& p) {
  return p.choice("dedup", "send a token once for each copy (none) or once for each rank that holds its experts (rank)", {"none", "rank"}, "none") == "rank" ? Rows::rank : Rows::copy;
}

Exchange along(std::string_view summary, std::function<Journey(const Topology&)> journey, Rows rows, int chunks) {
  Exchange x;
  x.summary = summary;
  x.journey = journey;
  const auto made = [journey](const Topology& topology) { return std::make_shared<const Journey>(journey(topology)); };
  if (rows == Rows::rank) {
    x.tree = [](const Plan& plan, const Topology&, Rank, Slot s) { return std::vector<std::int32_t>{plan.placement.rank_of(s)}; };
    lower_by(x, [made, chunks](const Topology& topology) { return added_on_ranks(made(topology), chunks); });
  } else {
    x.tree = [](const Plan&, const Topology&, Rank, Slot) { return std::vector<std::int32_t>{}; };
    lower_by(x, [made, chunks](const Topology& topology) { return copies_alone(made(topology), chunks); });
  }
  return x;
}

Journey straight(std::int64_t rows_per_message, bool one_sided) {
  return {{{}}, rows_per_message, one_sided, [](Rank s, Rank d, std::vector<Journey::Hop>& hops) {
            if (s != d) hops.push_back({0, s, d});
          }};
}

}  // namespace epsim::lowering
