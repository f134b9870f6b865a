// A token crosses to a node once and fans out inside it; results come back the same way. The rank that stands for a node towards a home rank is the one at the home
// rank's own place in its node, so that on rail-optimised networks every crossing stays on its rail (as DeepEP's normal kernels do).
#include "policies/exchange/shared/lowering.h"

namespace epsim::parts_exchange {
namespace {

using namespace lowering;
using Kind = Phase::Kind;

/// The rank through which rows of `home` enter and leave a node; in its own node, the home rank itself.
Rank gateway(const Topology& topology, Rank home, Node node) {
  if (topology.node_of(home) == node) return home;
  const auto ranks = topology.ranks_of(node);
  return ranks[static_cast<std::size_t>(topology.local_index(home)) % ranks.size()];
}

/// A row's hop between the home rank and a gateway; none in the home rank's own node.
template <class Sink>
RowRef cross(const Token<Sink>& token, int phase, Rank from, Rank to, RowRef row) {
  return from == to ? row : token.sink.transfer(phase, from, to, row);
}

/// Rows of a token into a node: to the gateway once, then to each rank. In the home rank's own node the rows go straight, in the first phase.
template <class Sink>
RowRef enter(const Token<Sink>& token, int dispatch, int forward, Rank via, RowRef at_gateway, Rank rank) {
  return token.sink.transfer(via == token.home ? dispatch : forward, via, rank, at_gateway);
}

/// Ranks add their copies, the gateway adds its node's ranks, and one row a node crosses back.
Exchange reduced(std::string_view summary) {
  enum { dispatch, forward, shared, experts, add_on_rank, gather, add_in_node, combine, add };
  const std::vector<Step> steps = {{Kind::transfer, Stage::dispatch, "dispatch", {}},
                                   {Kind::transfer, Stage::dispatch, "forward", {dispatch}},
                                   {Kind::kernel, Stage::compute, "shared expert", {}},
                                   {Kind::kernel, Stage::compute, "experts", {dispatch, forward}},
                                   {Kind::reduce, Stage::combine, "add on rank", {experts}},
                                   {Kind::transfer, Stage::combine, "gather", {add_on_rank}},
                                   {Kind::reduce, Stage::combine, "add in node", {add_on_rank, gather}},
                                   {Kind::transfer, Stage::combine, "combine", {add_in_node}},
                                   {Kind::reduce, Stage::combine, "add", {shared, add_in_node, combine}}};
  const auto by_node_and_rank = [](const Plan& plan, const Topology& topology, Slot s) {
    const Rank rank = plan.placement.rank_of(s);
    return std::vector<std::int32_t>{topology.node_of(rank), rank};
  };
  const auto count_home = [](const HomeCounts& h, Counter& counter) {
    std::int64_t nodes = 0;
    for (const Node node : ids<Node>(h.topology.nodes())) {
      const std::int64_t rows = h.node_reached[node];
      const Rank via = gateway(h.topology, h.home, node);
      if (via != h.home) counter.transfer(dispatch, h.home, via, rows), counter.transfer(combine, via, h.home, rows);
      for (const Rank r : h.topology.ranks_of(node)) {
        counter.transfer(via == h.home ? dispatch : forward, via, r, h.reached[r]);
        counter.reduce(add_on_rank, r, h.copies[r], h.reached[r]);
        counter.transfer(gather, r, via, h.reached[r]);
        counter.reduce(add_in_node, via, h.reached[r], 0);
      }
      counter.reduce(add_in_node, via, 0, rows);
      nodes += rows;
    }
    counter.reduce(add, h.home, nodes + h.shared, h.tokens);
  };
  return make_exchange(summary, steps, experts, shared, by_node_and_rank, count_home, [terms = Terms(), in_node = Terms(), on_rank = Terms()](const auto& token) mutable {
    terms.clear();
    for_each_group(token.copies, kAll, kNode, [&](Node node, auto) {
      const Rank via = gateway(token.topology, token.home, node);
      const RowRef at_gateway = cross(token, dispatch, token.home, via, token.row);
      in_node.clear();
      for_each_group(token.copies, [&](const Copy& c) { return c.node == node; }, kRank, [&](Rank rank, auto each) {
        const RowRef in = enter(token, dispatch, forward, via, at_gateway, rank);
        on_rank.clear();
        each([&](const Copy& c) { on_rank.push_back({token.sink.expert(c, in), c.weight}); });
        in_node.push_back({token.sink.transfer(gather, rank, via, token.sink.reduce(add_on_rank, rank, on_rank)), 1});
      });
      terms.push_back({cross(token, combine, via, token.home, token.sink.reduce(add_in_node, via, in_node)), 1});
    });
    terms.insert(terms.end(), token.shared.begin(), token.shared.end());
    token.sink.reduce(add, token.home, terms);
  });
}

/// Every copy's result comes back as a row of its own, through the gateway; the home rank adds in choice order.
Exchange forwarded(std::string_view summary) {
  enum { dispatch, forward, shared, experts, gather, combine, add };
  const std::vector<Step> steps = {{Kind::transfer, Stage::dispatch, "dispatch", {}},
                                   {Kind::transfer, Stage::dispatch, "forward", {dispatch}},
                                   {Kind::kernel, Stage::compute, "shared expert", {}},
                                   {Kind::kernel, Stage::compute, "experts", {dispatch, forward}},
                                   {Kind::transfer, Stage::combine, "gather", {experts}},
                                   {Kind::transfer, Stage::combine, "combine", {experts, gather}},
                                   {Kind::reduce, Stage::combine, "add", {shared, experts, gather, combine}}};
  const auto no_tree = [](const Plan&, const Topology&, Slot) { return std::vector<std::int32_t>{}; };
  struct Result {
    RowRef row;
    const Copy* copy;
  };
  const auto count_home = [](const HomeCounts& h, Counter& counter) {
    std::int64_t copies = 0;
    for (const Node node : ids<Node>(h.topology.nodes())) {
      const Rank via = gateway(h.topology, h.home, node);
      if (via != h.home) counter.transfer(dispatch, h.home, via, h.node_reached[node]);
      for (const Rank r : h.topology.ranks_of(node)) {
        counter.transfer(via == h.home ? dispatch : forward, via, r, h.reached[r]);
        counter.transfer(gather, r, via, h.copies[r]);
        if (via != h.home) counter.transfer(combine, via, h.home, h.copies[r]);
        copies += h.copies[r];
      }
    }
    counter.reduce(add, h.home, copies + h.shared, h.tokens);
  };
  return make_exchange(summary, steps, experts, shared, no_tree, count_home, [terms = Terms(), results = std::vector<Result>()](const auto& token) mutable {
    results.clear();
    for_each_group(token.copies, kAll, kNode, [&](Node node, auto) {
      const Rank via = gateway(token.topology, token.home, node);
      const RowRef at_gateway = cross(token, dispatch, token.home, via, token.row);
      for_each_group(token.copies, [&](const Copy& c) { return c.node == node; }, kRank, [&](Rank rank, auto each) {
        const RowRef in = enter(token, dispatch, forward, via, at_gateway, rank);
        each([&](const Copy& c) {
          const RowRef out = token.sink.transfer(gather, rank, via, token.sink.expert(c, in));
          results.push_back({cross(token, combine, via, token.home, out), &c});
        });
      });
    });
    terms.clear();
    std::sort(results.begin(), results.end(), [](const Result& a, const Result& b) { return a.copy < b.copy; });
    for (const Result& r : results) terms.push_back({r.row, r.copy->weight});
    terms.insert(terms.end(), token.shared.begin(), token.shared.end());
    token.sink.reduce(add, token.home, terms);
  });
}

}  // namespace

/// Two-level all-to-all with de-duplication: a token crosses to a node once, whatever number of its experts live there.
Exchange hierarchical(Params& p, const Shape*) {
  constexpr std::string_view summary = "a token crosses to a node once, on its own rail, and fans out inside; results come back the same way";
  const bool reduce = p.flag("reduce_in_node", "add a node's results before one row crosses back; otherwise every copy's result crosses back", true);
  return reduce ? reduced(summary) : forwarded(summary);
}

}  // namespace epsim::parts_exchange
