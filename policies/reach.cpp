#include "policies/reach.h"

#include <algorithm>
#include <numeric>

#include "base/parallel.h"
#include "policies/plan.h"

namespace epsim {
namespace {

/// Counts tokens, numbered from 1, at one place: a token is counted when it comes for the first time.
struct Visits {
  std::uint32_t last = 0, tokens = 0;
};

struct Place {
  std::int32_t rank, node;
};

/// Chunk `i` of all home ranks' chunks: its tokens.
struct Block {
  std::int64_t first, last;
  Block(const Plan& plan, std::int64_t i, int chunks) {
    const std::int64_t home = i / chunks, begin = plan.routing.first_token[home], tokens = plan.routing.first_token[home + 1] - begin;
    const auto chunk = static_cast<int>(i % chunks);
    first = begin + chunk_begin(tokens, chunk, chunks), last = begin + chunk_begin(tokens, chunk + 1, chunks);
  }
};

}  // namespace

Reach reach_of(const Plan& plan, const Topology& topology, int chunks) {
  const int ranks = plan.ranks(), nodes = topology.nodes();
  const std::int64_t blocks = std::int64_t{ranks} * chunks;
  // Dropped choices, slot -1, go to a rank and a node of their own: no branch, which could not be foreseen, is needed for them.
  std::vector<Place> places(static_cast<std::size_t>(plan.placement.slots()) + 1, {ranks, nodes});
  for (const Rank r : ids<Rank>(ranks))
    for (std::int32_t s = plan.placement.first_slot[r]; s < plan.placement.first_slot[r + 1]; ++s)
      places[static_cast<std::size_t>(s) + 1] = {r.value, nodes > 0 ? topology.node_of(r).value : 0};

  Reach reach{{blocks, ranks}, {blocks, nodes}, std::vector<std::int64_t>(static_cast<std::size_t>(blocks))};
  parallel_for(blocks, [&](std::int64_t block) {
    const std::int64_t k = plan.routing.top_k;
    const auto [first, last] = Block(plan, block, chunks);
    const Rank home(block / chunks);
    const bool shared = !plan.shared_rank.empty();
    const auto tokens = static_cast<std::uint32_t>(last - first);  // a rank makes fewer than 2^32 choices
    std::vector<Visits> of_rank(static_cast<std::size_t>(ranks) + 1), of_node(static_cast<std::size_t>(nodes) + 1);
    const Place* at_slot = places.data() + 1;
    const std::int32_t* slot = plan.slot.data() + first * k;
    std::int64_t reached = 0;
    const auto visit = [&](std::uint32_t t, const Place& at) {
      Visits &rank = of_rank[static_cast<std::size_t>(at.rank)], &node = of_node[static_cast<std::size_t>(at.node)];
      rank.tokens += rank.last != t;
      rank.last = t;
      node.tokens += node.last != t;
      node.last = t;
    };
    for (std::uint32_t t = 1; t <= tokens; ++t, slot += k) {
      std::int32_t highest = -1;
      for (std::int64_t c = 0; c < k; ++c) {
        visit(t, at_slot[slot[c]]);
        highest = slot[c] > highest ? slot[c] : highest;
      }
      if (shared)
        if (const Rank r = plan.shared_rank[static_cast<std::size_t>(first + t - 1)]; r != home) {
          visit(t, {r.value, nodes > 0 ? topology.node_of(r).value : 0});
          highest = std::max(highest, 0);
        }
      reached += highest >= 0;
    }
    for (std::int64_t r = 0; r < ranks; ++r) reach.ranks(block, r) = of_rank[static_cast<std::size_t>(r)].tokens;
    for (std::int64_t n = 0; n < nodes; ++n) reach.nodes(block, n) = of_node[static_cast<std::size_t>(n)].tokens;
    reach.tokens[static_cast<std::size_t>(block)] = reached;
  });
  return reach;
}

Matrix<std::int64_t> copies_by_rank(const Plan& plan, int chunks) {
  const int ranks = plan.ranks();
  Matrix<std::int64_t> copies(std::int64_t{ranks} * chunks, ranks);
  if (chunks == 1) {  // the plan has counted them by slot
    for (const Rank home : ids<Rank>(ranks))
      for (const Rank r : ids<Rank>(ranks)) {
        const auto slots = plan.copies.row(home).begin();
        copies(home, r) = std::accumulate(slots + plan.placement.first_slot[r], slots + plan.placement.first_slot[r + 1], std::int64_t{0});
      }
    return copies;
  }
  std::vector<std::int32_t> rank_of(static_cast<std::size_t>(plan.placement.slots()));
  for (const Rank r : ids<Rank>(ranks))
    std::fill(rank_of.begin() + plan.placement.first_slot[r], rank_of.begin() + plan.placement.first_slot[r + 1], r.value);
  parallel_for(copies.rows, [&](std::int64_t block) {
    const auto [first, last] = Block(plan, block, chunks);
    for (std::int64_t c = first * plan.routing.top_k; c < last * plan.routing.top_k; ++c)
      if (plan.slot[c] >= 0) ++copies(block, rank_of[plan.slot[c]]);
  });
  return copies;
}

Matrix<std::int64_t> visits_by_rank(const Plan& plan, int chunks) {
  if (plan.shared_rank.empty()) return {};
  Matrix<std::int64_t> visits(std::int64_t{plan.ranks()} * chunks, plan.ranks());
  parallel_for(visits.rows, [&](std::int64_t block) {
    const auto [first, last] = Block(plan, block, chunks);
    for (std::int64_t t = first; t < last; ++t)
      if (const Rank r = plan.shared_rank[static_cast<std::size_t>(t)]; r != block / chunks) ++visits(block, r);
  });
  return visits;
}

Matrix<std::int64_t> copies_by_slot(const Plan& plan, int chunks) {
  Matrix<std::int64_t> copies(chunks, plan.placement.slots());
  if (chunks == 1) {
    std::ranges::copy(plan.copies_of_slot(), copies.row(0).begin());
    return copies;
  }
  for (std::int64_t block = 0; block < std::int64_t{plan.ranks()} * chunks; ++block) {
    const auto [first, last] = Block(plan, block, chunks);
    for (std::int64_t c = first * plan.routing.top_k; c < last * plan.routing.top_k; ++c)
      if (plan.slot[c] >= 0) ++copies(block % chunks, plan.slot[c]);
  }
  return copies;
}

Matrix<std::int64_t> rows_by_slot(const Plan& plan, int chunks) {
  Matrix<std::int64_t> rows = copies_by_slot(plan, chunks);
  const std::vector<std::int64_t> all = plan.copies_of_slot(), computed = plan.rows_of_slot();
  for (std::int64_t s = 0; s < rows.columns; ++s) {
    std::int64_t change = computed[static_cast<std::size_t>(s)] - all[static_cast<std::size_t>(s)];
    for (std::int64_t c = chunks - 1; c >= 0 && change != 0; --c) {
      const std::int64_t here = std::max(change, -rows(c, s));
      rows(c, s) += here, change -= here;
    }
  }
  return rows;
}

}  // namespace epsim
