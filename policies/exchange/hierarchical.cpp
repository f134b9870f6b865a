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

/// The way of a token into nodes, one step a chunk of either hop.
struct Way {
  int dispatch, forward;

  explicit Way(Steps& steps) {
    steps.needs_reach = true;
    dispatch = steps.add_chunks(Kind::transfer, Stage::dispatch, "dispatch", [](int) { return std::vector<int>{}; });
    forward = steps.add_chunks(Kind::transfer, Stage::dispatch, "forward", [this](int c) { return std::vector{dispatch + c}; });
    steps.add_kernels([this](int c) { return std::vector{dispatch + c, forward + c}; });
  }
  void count(Counter& counter, const HomeCounts& h, Node node, Rank via) const {
    if (via != h.home) counter.transfer(dispatch + h.chunk, h.home, via, h.node_reached[node]);
    for (const Rank r : h.topology.ranks_of(node)) counter.transfer((via == h.home ? dispatch : forward) + h.chunk, via, r, h.reached[r]);
  }
  /// To the gateway once.
  template <class Sink>
  RowRef cross(const Token<Sink>& token, Rank via) const {
    return token.sink.transfer(dispatch + token.chunk, token.home, via, token.row);
  }
  /// From the gateway to a rank. In the home rank's own node rows go straight, in the first hop.
  template <class Sink>
  RowRef enter(const Token<Sink>& token, Rank via, RowRef at_gateway, Rank rank) const {
    return token.sink.transfer((via == token.home ? dispatch : forward) + token.chunk, via, rank, at_gateway);
  }
};

/// Ranks add their copies, the gateway adds its node's ranks, and one row a node crosses back.
auto reduced(Chunks chunks) {
  Steps steps(chunks);
  const Way way(steps);
  const LikeExperts like_experts = steps.like_experts;
  const int on_rank = steps.add_like_experts(Kind::reduce, Stage::combine, "add on rank", [&](int c) { return std::vector{like_experts(steps.experts, c)}; });
  const int gather = steps.add_chunks(Kind::transfer, Stage::combine, "gather", [&](int c) { return std::vector{like_experts(on_rank, c)}; });
  const int in_node = steps.add_chunks(Kind::reduce, Stage::combine, "add in node", [&](int c) { return std::vector{like_experts(on_rank, c), gather + c}; });
  const int combine = steps.add_chunks(Kind::transfer, Stage::combine, "combine", [&](int c) { return std::vector{in_node + c}; });
  const int add = steps.add({Kind::reduce, Stage::combine, "add", join({{steps.shared}, steps_from(in_node, 2 * steps.chunks)})});
  const auto count_home = [=](const HomeCounts& h, Counter& counter) {
    std::int64_t nodes = 0;
    for (const Node node : ids<Node>(h.topology.nodes())) {
      const std::int64_t rows = h.node_reached[node];
      const Rank via = gateway(h.topology, h.home, node);
      way.count(counter, h, node, via);
      for (const Rank r : h.topology.ranks_of(node)) {
        counter.reduce(like_experts(on_rank, h.chunk), r, h.copies[r], h.reached[r]);
        counter.transfer(gather + h.chunk, r, via, h.reached[r]);
        counter.reduce(in_node + h.chunk, via, h.reached[r], 0);
      }
      counter.reduce(in_node + h.chunk, via, 0, rows);
      counter.transfer(combine + h.chunk, via, h.home, rows);
      nodes += rows;
    }
    counter.reduce(add, h.home, nodes + h.shared, h.tokens);
  };
  const auto walk = [=, terms = Terms(), node_terms = Terms(), rank_terms = Terms()](const auto& token) mutable {
    terms.clear();
    for_each_group(token.copies, kAll, kNode, [&](Node node, auto) {
      const Rank via = gateway(token.topology, token.home, node);
      const RowRef at_gateway = way.cross(token, via);
      node_terms.clear();
      for_each_group(token.copies, [&](const Copy& c) { return c.node == node; }, kRank, [&](Rank rank, auto each) {
        const RowRef in = way.enter(token, via, at_gateway, rank);
        rank_terms.clear();
        each([&](const Copy& c) { rank_terms.push_back({token.sink.expert(token.chunk, c, in), c.weight}); });
        node_terms.push_back({token.sink.transfer(gather + token.chunk, rank, via, token.sink.reduce(like_experts(on_rank, token.chunk), rank, rank_terms)), 1});
      });
      terms.push_back({token.sink.transfer(combine + token.chunk, via, token.home, token.sink.reduce(in_node + token.chunk, via, node_terms)), 1});
    });
    terms.insert(terms.end(), token.shared.begin(), token.shared.end());
    token.sink.reduce(add, token.home, terms);
  };
  return Lowered{std::move(steps), count_home, walk};
}

/// Every copy's result comes back as a row of its own, through the gateway; the home rank adds in choice order.
auto forwarded(Chunks chunks) {
  Steps steps(chunks);
  const Way way(steps);
  const int gather = steps.add_chunks(Kind::transfer, Stage::combine, "gather", [&](int c) { return std::vector{steps.like_experts(steps.experts, c)}; });
  const int combine = steps.add_chunks(Kind::transfer, Stage::combine, "combine", [&](int c) { return std::vector{steps.like_experts(steps.experts, c), gather + c}; });
  const int add = steps.add({Kind::reduce, Stage::combine, "add", join({{steps.shared}, steps_from(steps.experts, steps.experts_steps()), steps_from(gather, 2 * steps.chunks)})});
  const auto count_home = [=](const HomeCounts& h, Counter& counter) {
    std::int64_t copies = 0;
    for (const Node node : ids<Node>(h.topology.nodes())) {
      const Rank via = gateway(h.topology, h.home, node);
      way.count(counter, h, node, via);
      for (const Rank r : h.topology.ranks_of(node)) {
        counter.transfer(gather + h.chunk, r, via, h.copies[r]);
        counter.transfer(combine + h.chunk, via, h.home, h.copies[r]);
        copies += h.copies[r];
      }
    }
    counter.reduce(add, h.home, copies + h.shared, h.tokens);
  };
  struct Result {
    RowRef row;
    const Copy* copy;
  };
  const auto walk = [=, terms = Terms(), results = std::vector<Result>()](const auto& token) mutable {
    results.clear();
    for_each_group(token.copies, kAll, kNode, [&](Node node, auto) {
      const Rank via = gateway(token.topology, token.home, node);
      const RowRef at_gateway = way.cross(token, via);
      for_each_group(token.copies, [&](const Copy& c) { return c.node == node; }, kRank, [&](Rank rank, auto each) {
        const RowRef in = way.enter(token, via, at_gateway, rank);
        each([&](const Copy& c) {
          const RowRef out = token.sink.transfer(gather + token.chunk, rank, via, token.sink.expert(token.chunk, c, in));
          results.push_back({token.sink.transfer(combine + token.chunk, via, token.home, out), &c});
        });
      });
    });
    terms.clear();
    std::sort(results.begin(), results.end(), [](const Result& a, const Result& b) { return a.copy < b.copy; });
    for (const Result& r : results) terms.push_back({r.row, r.copy->weight});
    terms.insert(terms.end(), token.shared.begin(), token.shared.end());
    token.sink.reduce(add, token.home, terms);
  };
  return Lowered{std::move(steps), count_home, walk};
}

/// Bytes without tokens go through the gateway likewise, with nothing to leave out.
Journey journey(const Topology& topology) {
  Journey j;
  j.rounds = {{{}, {}, "across nodes"}, {{0}, {}, "inside nodes"}};
  j.last = [&topology](Rank s, Rank d) {
    const Rank via = gateway(topology, s, topology.node_of(d));
    return via == s || via == d ? Journey::LastHop{0, s} : Journey::LastHop{1, via};
  };
  return j;
}

}  // namespace

/// Two-level all-to-all with de-duplication: a token crosses to a node once, whatever number of its experts live there.
Exchange hierarchical(Params& p, const Shape*) {
  Exchange x;
  x.summary = "a token crosses to a node once, on its own rail, and fans out inside; results come back the same way";
  const bool reduce = p.flag("reduce_in_node", "add a node's results before one row crosses back; otherwise every copy's result crosses back", true);
  const Chunks chunks = read_chunks(p, true);
  x.journey = journey;
  x.dispatch_row_for = RowFor::node;
  x.combine_row_for = reduce ? RowFor::node : RowFor::copy;
  if (reduce) {
    x.tree = [](const Plan&, const Topology& topology, Rank, Rank at) { return std::vector<std::int32_t>{topology.node_of(at), at}; };
    lower_by(x, [chunks](const Topology&) { return reduced(chunks); });
  } else {
    x.tree = [](const Plan&, const Topology&, Rank, Rank) { return std::vector<std::int32_t>{}; };
    lower_by(x, [chunks](const Topology&) { return forwarded(chunks); });
  }
  return x;
}

}  // namespace epsim::parts_exchange
