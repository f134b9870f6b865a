#include <fmt/format.h>

#include "policies/exchange/shared/along.h"

namespace epsim::parts_exchange {
namespace {

using namespace lowering;
using Kind = Phase::Kind;

constexpr auto kGather = "all-gather", kScatter = "reduce-scatter";

/// Every rank sends all its tokens to every rank, all at once; every rank returns a row a token, which the home rank adds where they hold anything.
auto at_once() {
  Steps steps;
  steps.needs_reach = true;
  const int gather = steps.add({Kind::transfer, Stage::dispatch, kGather, {}});
  steps.add_kernels({gather});
  const int on_rank = steps.add({Kind::reduce, Stage::combine, "add on rank", {steps.experts}});
  const int scatter = steps.add({Kind::transfer, Stage::combine, kScatter, {on_rank}});
  const int add = steps.add({Kind::reduce, Stage::combine, "add", {steps.shared, on_rank, scatter}});
  const auto count_home = [=](const HomeCounts& h, Counter& counter) {
    counter.reduce(add, h.home, h.shared, h.tokens);
    for (const Rank r : ids<Rank>(h.topology.ranks())) {
      counter.transfer(gather, h.home, r, h.tokens);
      counter.reduce(on_rank, r, h.copies[r], h.tokens);
      counter.transfer(scatter, r, h.home, h.tokens);
      counter.reduce(add, h.home, h.reached[r], 0);
    }
  };
  const auto walk = [=, terms = Terms(), mine = Terms(), back = std::vector<RowRef>()](const auto& token) mutable {
    back.clear(), terms.clear();
    for (const Rank r : ids<Rank>(token.topology.ranks())) {
      const RowRef in = token.sink.transfer(gather, token.home, r, token.row);
      mine.clear();
      for (const Copy& c : token.copies)
        if (c.rank == r) mine.push_back({token.sink.expert(c, in), c.weight});
      back.push_back(token.sink.transfer(scatter, r, token.home, token.sink.reduce(on_rank, r, mine)));
    }
    for_each_group(token.copies, kAll, kRank, [&](Rank rank, auto) { terms.push_back({back[static_cast<std::size_t>(rank)], 1}); });
    terms.insert(terms.end(), token.shared.begin(), token.shared.end());
    token.sink.reduce(add, token.home, terms);
  };
  return Lowered{std::move(steps), count_home, walk};
}

/// Tokens go once around a ring. Sums go around it, too, beginning behind the home rank and ending there, and each rank on the way adds its own.
auto around(int ranks) {
  const int rounds = ranks - 1;
  Steps steps;
  steps.needs_reach = true;
  for (int i = 0; i < rounds; ++i) {
    const std::vector<int> before = i > 0 ? std::vector{i - 1} : std::vector<int>{};
    steps.add({Kind::transfer, Stage::dispatch, fmt::format("{} {}", kGather, i + 1), before, before});
  }
  steps.add_kernels(steps_from(0, rounds));
  const int on_rank = steps.add({Kind::reduce, Stage::combine, "add on rank", {steps.experts}});
  // From here: send 0, add 1, send 1, add 2, ... send R - 2, and the last sum.
  const int ring = on_rank + 1;
  for (int i = 0; i < rounds; ++i) {
    if (i > 0) steps.add({Kind::reduce, Stage::combine, fmt::format("add on the way {}", i), {on_rank, ring + 2 * i - 2}});
    steps.add({Kind::transfer, Stage::combine, fmt::format("{} {}", kScatter, i + 1), {i > 0 ? ring + 2 * i - 1 : on_rank}, i > 0 ? std::vector{ring + 2 * i - 2} : std::vector<int>{}});
  }
  std::vector<int> last = {steps.shared, on_rank};
  if (rounds > 0) last.push_back(ring + 2 * rounds - 2);
  steps.add({Kind::reduce, Stage::combine, "add", std::move(last)});
  const auto send = [=](int i) { return ring + 2 * i; };
  // The sum that the rank `i` places behind the first one makes; the home rank's is the last of all.
  const auto sum = [=](int i) { return ring + 2 * i - 1; };

  const auto count_home = [=](const HomeCounts& h, Counter& counter) {
    // A row is only read where somebody has added to it: tokens by the place of the first rank that does.
    std::vector<std::int64_t> begun(static_cast<std::size_t>(ranks));
    std::vector<int> place(static_cast<std::size_t>(h.plan.placement.slots()));
    for (const Rank r : ids<Rank>(ranks))
      for (std::int32_t s = h.plan.placement.first_slot[r]; s < h.plan.placement.first_slot[r + 1]; ++s) place[s] = ahead(h.home, r, ranks) == 0 ? rounds : ahead(h.home, r, ranks) - 1;
    const std::int64_t k = h.plan.routing.top_k, first = h.plan.routing.first_token[h.home];
    for (std::int64_t t = first; t < first + h.tokens; ++t) {
      int nearest = ranks;
      for (std::int64_t c = t * k; c < (t + 1) * k; ++c)
        if (h.plan.slot[c] >= 0) nearest = std::min(nearest, place[h.plan.slot[c]]);
      if (nearest < ranks) ++begun[static_cast<std::size_t>(nearest)];
    }
    std::int64_t before = 0;
    for (int i = 0; i < ranks; ++i) {
      const Rank r = behind(h.home, i + 1, ranks);
      if (i < rounds) {
        counter.transfer(i, behind(h.home, i, ranks), r, h.tokens);
        counter.transfer(send(i), r, behind(r, 1, ranks), h.tokens);
      }
      counter.reduce(on_rank, r, h.copies[r], h.tokens);
      if (i > 0 || ranks == 1) counter.reduce(ranks == 1 ? ring : sum(i), r, before + h.reached[r], h.tokens);
      before += begun[static_cast<std::size_t>(i)];
    }
    counter.reduce(ranks == 1 ? ring : sum(rounds), h.home, h.shared, 0);
  };
  const auto walk = [=, terms = Terms(), mine = Terms(), gathered = std::vector<RowRef>()](const auto& token) mutable {
    gathered.assign(1, token.row);
    for (int i = 0; i < rounds; ++i) gathered.push_back(token.sink.transfer(i, behind(token.home, i, ranks), behind(token.home, i + 1, ranks), gathered.back()));
    RowRef travelling{};
    bool begun = false;
    for (int i = 0; i < ranks; ++i) {
      const Rank r = behind(token.home, i + 1, ranks);
      mine.clear();
      for (const Copy& c : token.copies)
        if (c.rank == r) mine.push_back({token.sink.expert(c, gathered[static_cast<std::size_t>((i + 1) % ranks)]), c.weight});
      RowRef own = token.sink.reduce(on_rank, r, mine);
      if (i > 0 || ranks == 1) {
        terms.clear();
        if (begun) terms.push_back({travelling, 1});
        if (!mine.empty()) terms.push_back({own, 1});
        if (i == rounds) terms.insert(terms.end(), token.shared.begin(), token.shared.end());
        own = token.sink.reduce(ranks == 1 ? ring : sum(i), r, terms);
      }
      begun = begun || !mine.empty();
      if (i < rounds) travelling = token.sink.transfer(send(i), r, behind(r, 1, ranks), own);
    }
  };
  return Lowered{std::move(steps), count_home, walk};
}

}  // namespace

/// All-gather and reduce-scatter instead of an all-to-all: every rank gets every token, computes those of its experts, adds its results to a row for each token of the batch, and these rows are added
/// towards the tokens' home ranks (the `AllGather` dispatcher of Megatron-LM; vLLM's allgather_reducescatter). Bytes depend on the batch alone, not on the routing. A row that nobody has added to yet is
/// sent, as zeros, but not read. `direct` sends everything at once and the home rank adds by ranks; `ring` takes R - 1 steps either way and adds on the way, from the rank behind the home rank onwards.
Exchange allgather_reducescatter(Params& p, const Shape*) {
  Exchange x;
  x.summary = "every rank gets every token; results are added on each rank and reduce-scattered";
  const bool in_ring = p.choice("algorithm", "all messages at once (direct) or from neighbour to neighbour in R - 1 steps (ring)", {"direct", "ring"}, "ring") == "ring";
  x.tree_by_key = in_ring;
  if (in_ring) {
    x.tree = [](const Plan& plan, const Topology&, Rank home, Slot s) {
      return std::vector<std::int32_t>{(plan.placement.rank_of(s) - home - 1 + plan.ranks()) % plan.ranks()};
    };
    lower_by(x, [](const Topology& topology) { return around(topology.ranks()); });
  } else {
    x.tree = [](const Plan& plan, const Topology&, Rank, Slot s) { return std::vector<std::int32_t>{plan.placement.rank_of(s)}; };
    lower_by(x, [](const Topology&) { return at_once(); });
  }
  return x;
}

}  // namespace epsim::parts_exchange
