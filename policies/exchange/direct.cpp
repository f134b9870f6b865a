// Every rank sends its rows straight to the ranks that compute them, all messages at once; results come straight back.
#include "policies/exchange/shared/lowering.h"

namespace epsim::parts_exchange {
namespace {

using namespace lowering;
using Kind = Phase::Kind;

/// One row a copy, both ways; the home rank adds a token's results in choice order.
Exchange one_row_a_copy(std::string_view summary) {
  enum { dispatch, shared, experts, combine, add };
  const std::vector<Step> steps = {{Kind::transfer, Stage::dispatch, "dispatch", {}},
                                   {Kind::kernel, Stage::compute, "shared expert", {}},
                                   {Kind::kernel, Stage::compute, "experts", {dispatch}},
                                   {Kind::transfer, Stage::combine, "combine", {experts}},
                                   {Kind::reduce, Stage::combine, "add", {shared, experts, combine}}};
  const auto no_tree = [](const Plan&, const Topology&, Slot) { return std::vector<std::int32_t>{}; };
  const auto count_home = [](const HomeCounts& h, Counter& counter) {
    std::int64_t copies = 0;
    for (const Rank r : ids<Rank>(h.topology.ranks())) {
      counter.transfer(dispatch, h.home, r, h.copies[r]);
      counter.transfer(combine, r, h.home, h.copies[r]);
      copies += h.copies[r];
    }
    counter.reduce(add, h.home, copies + h.shared, h.tokens);
  };
  return make_exchange(summary, steps, experts, shared, no_tree, count_home, [terms = Terms()](const auto& token) mutable {
    terms.clear();
    for (const Copy& c : token.copies) {
      const RowRef out = token.sink.expert(c, token.sink.transfer(dispatch, token.home, c.rank, token.row));
      terms.push_back({token.sink.transfer(combine, c.rank, token.home, out), c.weight});
    }
    terms.insert(terms.end(), token.shared.begin(), token.shared.end());
    token.sink.reduce(add, token.home, terms);
  });
}

/// One row for each rank that holds any of a token's experts; that rank adds its copies' weighted results and returns one row.
Exchange one_row_a_rank(std::string_view summary) {
  enum { dispatch, shared, experts, add_on_rank, combine, add };
  const std::vector<Step> steps = {{Kind::transfer, Stage::dispatch, "dispatch", {}},
                                   {Kind::kernel, Stage::compute, "shared expert", {}},
                                   {Kind::kernel, Stage::compute, "experts", {dispatch}},
                                   {Kind::reduce, Stage::combine, "add on rank", {experts}},
                                   {Kind::transfer, Stage::combine, "combine", {add_on_rank}},
                                   {Kind::reduce, Stage::combine, "add", {shared, add_on_rank, combine}}};
  const auto by_rank = [](const Plan& plan, const Topology&, Slot s) { return std::vector<std::int32_t>{plan.placement.rank_of(s)}; };
  const auto count_home = [](const HomeCounts& h, Counter& counter) {
    std::int64_t rows = 0;
    for (const Rank r : ids<Rank>(h.topology.ranks())) {
      counter.transfer(dispatch, h.home, r, h.reached[r]);
      counter.reduce(add_on_rank, r, h.copies[r], h.reached[r]);
      counter.transfer(combine, r, h.home, h.reached[r]);
      rows += h.reached[r];
    }
    counter.reduce(add, h.home, rows + h.shared, h.tokens);
  };
  return make_exchange(summary, steps, experts, shared, by_rank, count_home, [terms = Terms(), on_rank = Terms()](const auto& token) mutable {
    terms.clear();
    for_each_group(token.copies, kAll, kRank, [&](Rank rank, auto each) {
      const RowRef in = token.sink.transfer(dispatch, token.home, rank, token.row);
      on_rank.clear();
      each([&](const Copy& c) { on_rank.push_back({token.sink.expert(c, in), c.weight}); });
      terms.push_back({token.sink.transfer(combine, rank, token.home, token.sink.reduce(add_on_rank, rank, on_rank)), 1});
    });
    terms.insert(terms.end(), token.shared.begin(), token.shared.end());
    token.sink.reduce(add, token.home, terms);
  });
}

}  // namespace

/// Direct all-to-all. `dedup: none` sends a token once a copy; `dedup: rank` once a rank, whose copies are then added before they return.
Exchange direct(Params& p, const Shape*) {
  constexpr std::string_view summary = "all messages at once, straight from the token's rank to the expert's and back";
  const std::string dedup = p.choice("dedup", "send a token once for each copy (none) or once for each rank that holds its experts (rank)", {"none", "rank"}, "none");
  return dedup == "rank" ? one_row_a_rank(summary) : one_row_a_copy(summary);
}

}  // namespace epsim::parts_exchange
