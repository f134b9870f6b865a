#include <fmt/format.h>

#include "policies/exchange/shared/along.h"

namespace epsim::parts_exchange {
namespace {

using namespace lowering;
using Kind = Phase::Kind;

constexpr auto kGather = "all-gather", kScatter = "reduce-scatter";

/// Every rank sends all its tokens to every rank, all at once; every rank returns a row a token, which the home rank adds where they hold anything.
auto at_once(Chunks chunks) {
  Steps steps(chunks);
  steps.needs_reach = true;
  const LikeExperts like_experts = steps.like_experts;
  const int gather = steps.add_chunks(Kind::transfer, Stage::dispatch, kGather, [](int) { return std::vector<int>{}; });
  steps.add_kernels([&](int c) { return std::vector{gather + c}; });
  const int on_rank = steps.add_like_experts(Kind::reduce, Stage::combine, "add on rank", [&](int c) { return std::vector{like_experts(steps.experts, c)}; });
  const int scatter = steps.add_chunks(Kind::transfer, Stage::combine, kScatter, [&](int c) { return std::vector{like_experts(on_rank, c)}; });
  const int add = steps.add({Kind::reduce, Stage::combine, "add", join({{steps.shared}, steps_from(on_rank, steps.experts_steps()), steps_from(scatter, steps.chunks)})});
  const auto count_home = [=](const HomeCounts& h, Counter& counter) {
    counter.reduce(add, h.home, h.shared, h.tokens);
    for (const Rank r : ids<Rank>(h.topology.ranks())) {
      counter.transfer(gather + h.chunk, h.home, r, h.tokens);
      counter.reduce(like_experts(on_rank, h.chunk), r, h.copies[r], h.tokens);
      counter.transfer(scatter + h.chunk, r, h.home, h.tokens);
      counter.reduce(add, h.home, h.reached[r], 0);
    }
  };
  const auto walk = [=, terms = Terms(), mine = Terms(), back = std::vector<RowRef>()](const auto& token) mutable {
    back.clear(), terms.clear();
    for (const Rank r : ids<Rank>(token.topology.ranks())) {
      const RowRef in = token.sink.transfer(gather + token.chunk, token.home, r, token.row);
      mine.clear();
      for (const Copy& c : token.copies)
        if (c.rank == r) mine.push_back({token.sink.expert(token.chunk, c, in), c.weight});
      back.push_back(token.sink.transfer(scatter + token.chunk, r, token.home, token.sink.reduce(like_experts(on_rank, token.chunk), r, mine)));
    }
    for_each_group(token.copies, kAll, kRank, [&](Rank rank, auto) { terms.push_back({back[static_cast<std::size_t>(rank)], 1}); });
    terms.insert(terms.end(), token.shared.begin(), token.shared.end());
    token.sink.reduce(add, token.home, terms);
  };
  return Lowered{std::move(steps), count_home, walk};
}

/// Tokens go once around a ring. Sums go around it, too, beginning behind the home rank and ending there, and each rank on the way adds its own.
auto around(int ranks, Chunks cut) {
  const int rounds = ranks - 1, chunks = cut.count;
  Steps steps(cut);
  steps.needs_reach = true;
  const auto of_chunk = [=](std::string name, int c) { return chunks == 1 ? name : fmt::format("{} chunk {}", name, c + 1); };
  // A rank paces itself by the round before, and by the same round of the chunk before.
  const auto paced = [](int before, bool first_round, int chunk_before, bool first_chunk) {
    std::vector<int> sent;
    if (!first_round) sent.push_back(before);
    if (!first_chunk) sent.push_back(chunk_before);
    return sent;
  };
  const auto gather = [=](int c, int i) { return c * rounds + i; };
  for (int c = 0; c < chunks; ++c)
    for (int i = 0; i < rounds; ++i)
      steps.add({Kind::transfer, Stage::dispatch, of_chunk(fmt::format("{} {}", kGather, i + 1), c), i > 0 ? std::vector{gather(c, i - 1)} : std::vector<int>{},
                 paced(gather(c, i - 1), i == 0, gather(c - 1, i), c == 0)});
  steps.add_kernels([&](int c) { return steps_from(gather(c, 0), rounds); });
  const LikeExperts like_experts = steps.like_experts;
  const int on_rank = steps.add_like_experts(Kind::reduce, Stage::combine, "add on rank", [&](int c) { return std::vector{like_experts(steps.experts, c)}; });
  // From here, of each chunk: send 0, add 1, send 1, add 2, ... send R - 2; and the last sum.
  const int ring = on_rank + steps.experts_steps(), of_a_chunk = std::max(0, 2 * rounds - 1);
  const auto send = [=](int c, int i) { return ring + c * of_a_chunk + 2 * i; };
  // The sum that the rank `i` places behind the first one makes; the home rank's is the last of all.
  const auto sum = [=](int c, int i) { return i == rounds ? ring + chunks * of_a_chunk : send(c, i) - 1; };
  for (int c = 0; c < chunks; ++c)
    for (int i = 0; i < rounds; ++i) {
      if (i > 0) steps.add({Kind::reduce, Stage::combine, of_chunk(fmt::format("add on the way {}", i), c), {like_experts(on_rank, c), send(c, i - 1)}});
      steps.add({Kind::transfer, Stage::combine, of_chunk(fmt::format("{} {}", kScatter, i + 1), c), {i > 0 ? sum(c, i) : like_experts(on_rank, c)}, paced(send(c, i - 1), i == 0, send(c - 1, i), c == 0)});
    }
  std::vector<int> last = join({{steps.shared}, steps_from(on_rank, steps.experts_steps())});
  for (int c = 0; c < chunks && rounds > 0; ++c) last.push_back(send(c, rounds - 1));
  steps.add({Kind::reduce, Stage::combine, "add", std::move(last)});

  const auto count_home = [=](const HomeCounts& h, Counter& counter) {
    // A row is only read where somebody has added to it: tokens by the place of the first rank that does.
    std::vector<std::int64_t> begun(static_cast<std::size_t>(ranks));
    const auto place_of = [&](Rank r) { return ahead(h.home, r, ranks) == 0 ? rounds : ahead(h.home, r, ranks) - 1; };
    std::vector<int> place(static_cast<std::size_t>(h.plan.placement.slots()));
    for (const Rank r : ids<Rank>(ranks))
      for (std::int32_t s = h.plan.placement.first_slot[r]; s < h.plan.placement.first_slot[r + 1]; ++s) place[s] = place_of(r);
    const std::int64_t k = h.plan.routing.top_k, first = h.first;
    for (std::int64_t t = first; t < first + h.tokens; ++t) {
      int nearest = ranks;
      for (std::int64_t c = t * k; c < (t + 1) * k; ++c)
        if (h.plan.slot[c] >= 0) nearest = std::min(nearest, place[h.plan.slot[c]]);
      if (const Rank r = h.plan.shared_rank.empty() ? h.home : h.plan.shared_rank[static_cast<std::size_t>(t)]; r != h.home) nearest = std::min(nearest, place_of(r));
      if (nearest < ranks) ++begun[static_cast<std::size_t>(nearest)];
    }
    std::int64_t before = 0;
    for (int i = 0; i < ranks; ++i) {
      const Rank r = behind(h.home, i + 1, ranks);
      if (i < rounds) {
        counter.transfer(gather(h.chunk, i), behind(h.home, i, ranks), r, h.tokens);
        counter.transfer(send(h.chunk, i), r, behind(r, 1, ranks), h.tokens);
      }
      counter.reduce(like_experts(on_rank, h.chunk), r, h.copies[r], h.tokens);
      if (i > 0 || ranks == 1) counter.reduce(sum(h.chunk, i), r, before + h.reached[r], h.tokens);
      before += begun[static_cast<std::size_t>(i)];
    }
    counter.reduce(sum(h.chunk, rounds), h.home, h.shared, 0);
  };
  const auto walk = [=, terms = Terms(), mine = Terms(), gathered = std::vector<RowRef>()](const auto& token) mutable {
    gathered.assign(1, token.row);
    for (int i = 0; i < rounds; ++i) gathered.push_back(token.sink.transfer(gather(token.chunk, i), behind(token.home, i, ranks), behind(token.home, i + 1, ranks), gathered.back()));
    RowRef travelling{};
    bool begun = false;
    for (int i = 0; i < ranks; ++i) {
      const Rank r = behind(token.home, i + 1, ranks);
      mine.clear();
      for (const Copy& c : token.copies)
        if (c.rank == r) mine.push_back({token.sink.expert(token.chunk, c, gathered[static_cast<std::size_t>((i + 1) % ranks)]), c.weight});
      RowRef own = token.sink.reduce(like_experts(on_rank, token.chunk), r, mine);
      if (i > 0 || ranks == 1) {
        terms.clear();
        if (begun) terms.push_back({travelling, 1});
        if (!mine.empty()) terms.push_back({own, 1});
        if (i == rounds) terms.insert(terms.end(), token.shared.begin(), token.shared.end());
        own = token.sink.reduce(sum(token.chunk, i), r, terms);
      }
      begun = begun || !mine.empty();
      if (i < rounds) travelling = token.sink.transfer(send(token.chunk, i), r, behind(r, 1, ranks), own);
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
  const Chunks chunks = read_chunks(p, in_ring);
  x.tree_by_key = in_ring;
  if (in_ring) {
    x.tree = [](const Plan& plan, const Topology&, Rank home, Rank at) { return std::vector<std::int32_t>{(at - home - 1 + plan.ranks()) % plan.ranks()}; };
    lower_by(x, [chunks](const Topology& topology) { return around(topology.ranks(), chunks); });
  } else {
    x.tree = [](const Plan&, const Topology&, Rank, Rank at) { return std::vector<std::int32_t>{at}; };
    lower_by(x, [chunks](const Topology&) { return at_once(chunks); });
  }
  return x;
}

}  // namespace epsim::parts_exchange
