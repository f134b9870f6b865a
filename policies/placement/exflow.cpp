#include <algorithm>
#include <numeric>

#include "base/parallel.h"
#include "policies/placement/shared/affinity_groups.h"
#include "policies/placement/shared/homes.h"
#include "policies/placement/shared/nodes.h"

namespace epsim::parts_placement {
namespace {

using Ranks = std::vector<std::vector<Rank>>;  ///< [layer][expert]

/// How many times a token that chose expert a of a layer chose b of the next: [layers - 1] of [E][E].
std::vector<Matrix<std::int64_t>> bigrams(const Problem& problem) {
  std::vector<Matrix<std::int64_t>> out(problem.tokens.size() - 1);
  parallel_for(static_cast<std::int64_t>(out.size()), [&](std::int64_t l) {
    const auto layer = static_cast<std::size_t>(l);
    out[layer] = Matrix<std::int64_t>(problem.experts, problem.experts);
    for (std::size_t b = 0; b < std::min(problem.tokens[layer].size(), problem.tokens[layer + 1].size()); ++b) {
      const Routing &now = *problem.tokens[layer][b], &next = *problem.tokens[layer + 1][b];
      for (std::int64_t t = 0; t < std::min(now.tokens(), next.tokens()); ++t)
        for (std::int64_t i = t * now.top_k; i < (t + 1) * now.top_k; ++i)
          for (std::int64_t j = t * next.top_k; j < (t + 1) * next.top_k; ++j)
            ++out[layer](now.expert[static_cast<std::size_t>(i)], next.expert[static_cast<std::size_t>(j)]);
    }
  });
  return out;
}

/// Moves between layers that a placement saves against one where all cross nodes.
class Affinity {
 public:
  Affinity(const Problem& problem, Rational node_cost)
      : pairs_(bigrams(problem)),
        node_(node_of_ranks(problem)),
        ranks_(problem.ranks),
        nodes_(problem.nodes),
        same_rank_(node_cost.num),
        same_node_(node_cost.num - node_cost.den) {}

  std::int64_t saved(const Ranks& rank) const {
    std::int64_t sum = 0;
    for (std::size_t l = 0; l + 1 < rank.size(); ++l)
      for (std::size_t a = 0; a < rank[l].size(); ++a)
        for (std::size_t b = 0; b < rank[l].size(); ++b)
          sum += pairs_[l](static_cast<std::int64_t>(a), static_cast<std::int64_t>(b)) * saves(rank[l][a], rank[l + 1][b]);
    return sum;
  }
  /// Experts of the first layer that are followed by the same experts, together, equally many on each rank.
  std::vector<Rank> first_layer() const {
    Matrix<std::int64_t> next = pairs_.front();
    const std::int64_t scale = 1 + (std::accumulate(next.cells.begin(), next.cells.end(), std::int64_t{0}) >> 31);  // products of sums stay within 63 bits
    for (std::int64_t& n : next.cells) n /= scale;
    Matrix<std::int64_t> alike(next.rows, next.rows);
    for (std::int64_t a = 0; a < next.rows; ++a)
      for (std::int64_t b = 0; b < a; ++b)
        alike(a, b) = alike(b, a) = std::inner_product(next.row(a).begin(), next.row(a).end(), next.row(b).begin(), std::int64_t{0});
    const auto experts = static_cast<int>(next.rows);
    std::vector<Rank> rank;
    for (const int g : group_by_affinity(alike, ranks_, experts / ranks_, (experts + ranks_ - 1) / ranks_)) rank.push_back(Rank(g));
    return rank;
  }
  /// Swaps experts of one layer between ranks while that saves moves from the layer before and to the layer after; `after` says whether that one counts
  /// already. True if any were swapped.
  bool improve(Ranks& rank, std::size_t layer, bool after) const {
    const auto experts = static_cast<std::int64_t>(rank[layer].size());
    Matrix<std::int64_t> saves(experts, ranks_);  // of an expert on a rank
    if (layer > 0) add(saves, rank[layer - 1], [&](std::int64_t e, std::int64_t other) { return pairs_[layer - 1](other, e); });
    if (after && layer + 1 < rank.size()) add(saves, rank[layer + 1], [&](std::int64_t e, std::int64_t other) { return pairs_[layer](e, other); });
    bool any = false;
    for (bool swapped = true; swapped;) {
      swapped = false;
      for (std::int64_t a = 0; a < experts; ++a)
        for (std::int64_t b = a + 1; b < experts; ++b) {
          Rank &ra = rank[layer][static_cast<std::size_t>(a)], &rb = rank[layer][static_cast<std::size_t>(b)];
          if (saves(a, rb) + saves(b, ra) <= saves(a, ra) + saves(b, rb)) continue;
          std::swap(ra, rb);
          any = swapped = true;
        }
    }
    return any;
  }

 private:
  std::int64_t saves(Rank a, Rank b) const {
    return a == b ? same_rank_ : node_[static_cast<std::size_t>(a)] == node_[static_cast<std::size_t>(b)] ? same_node_ : 0;
  }
  template <class Pairs>
  void add(Matrix<std::int64_t>& saves, std::span<const Rank> others, Pairs pairs) const {
    std::vector<std::int64_t> to_rank(static_cast<std::size_t>(ranks_)), to_node(static_cast<std::size_t>(nodes_));
    for (std::int64_t e = 0; e < saves.rows; ++e) {
      std::ranges::fill(to_rank, 0);
      std::ranges::fill(to_node, 0);
      for (std::size_t o = 0; o < others.size(); ++o) {
        const std::int64_t n = pairs(e, static_cast<std::int64_t>(o));
        to_rank[static_cast<std::size_t>(others[o])] += n;
        to_node[static_cast<std::size_t>(node_[static_cast<std::size_t>(others[o])])] += n;
      }
      for (std::int64_t r = 0; r < saves.columns; ++r)
        saves(e, r) += (same_rank_ - same_node_) * to_rank[static_cast<std::size_t>(r)] +
                       same_node_ * to_node[static_cast<std::size_t>(node_[static_cast<std::size_t>(r)])];
    }
  }

  std::vector<Matrix<std::int64_t>> pairs_;
  std::vector<int> node_;
  int ranks_, nodes_;
  std::int64_t same_rank_, same_node_;  // what a pair saves there, in units in which both are whole
};

/// Layers in turn, each given its neighbours, until no swap in any saves moves. Layers that are not neighbours do not see each other, so every other one goes
/// at once.
void sweep(const Affinity& affinity, Ranks& rank, std::int64_t sweeps) {
  std::vector<char> better(rank.size(), 1);
  for (std::int64_t s = 0; s < sweeps && std::ranges::find(better, 1) != better.end(); ++s)
    for (const std::size_t odd : {0U, 1U})
      parallel_for(static_cast<std::int64_t>((rank.size() + 1 - odd) / 2), [&](std::int64_t i) {
        const std::size_t layer = 2 * static_cast<std::size_t>(i) + odd;
        better[layer] = affinity.improve(rank, layer, true);
      });
}

}  // namespace

/// ExFlow's inter-layer expert affinity (Yao et al., IPDPS 2024): experts of all layers at once, equally many of each layer on each rank, so that few tokens
/// change ranks from one layer to the next. A move inside a node costs 1, one between nodes `node_cost`; a token with several choices moves from each to each.
/// Instead of ExFlow's integer program, pairwise swaps (Kernighan and Lin 1970) layer by layer on the counts of pairs: from contiguous blocks, and from a chain
/// that begins with groups of experts of the first layer that have the same followers (GRACE's grouping) and in which each layer follows the one before; the
/// better end is taken. Loads are not looked at.
PlacementPolicy exflow(Params& p, const Shape*) {
  PlacementPolicy policy;
  policy.summary =
      "ExFlow: experts of all layers placed at once, so that few tokens change ranks between layers; swaps on counts of choices in consecutive layers.";
  policy.sees = PlacementPolicy::Sees::tokens;
  policy.all_layers = true;
  const Rational node_cost = p.rational("node_cost", "cost of a move between nodes, in moves between ranks of a node; 1 or more", Rational{2, 1});
  if (node_cost.num < node_cost.den || node_cost.num > 1'000'000)
    p.error("node_cost", "`node_cost` must be from 1 to 1,000,000: a move between nodes costs no less than one inside");
  const std::int64_t sweeps = p.integer("sweeps", "most rounds over all layers", 20, 1, 100'000);
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    Problem fresh;  // contiguous blocks, whatever is in force
    fresh.experts = problem.experts, fresh.ranks = problem.ranks;
    Ranks best(problem.counts.size(), home_ranks(fresh, 0));
    if (best.size() > 1) {
      const Affinity affinity(problem, node_cost);
      Ranks chain = best;
      chain.front() = affinity.first_layer();
      for (std::size_t l = 1; l < chain.size(); ++l) affinity.improve(chain, l, false);
      sweep(affinity, best, sweeps);
      sweep(affinity, chain, sweeps);
      if (affinity.saved(chain) > affinity.saved(best)) best = std::move(chain);
    }
    std::vector<Placement> placements;
    for (const std::vector<Rank>& rank : best) placements.push_back(place_experts(rank, problem.ranks));
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
