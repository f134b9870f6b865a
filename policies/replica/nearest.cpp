#include <algorithm>
#include <numeric>

#include "base/rng.h"
#include "policies/replica/shared/quotas.h"

namespace epsim::parts_replica {
namespace {

/// One candidate for each of `sources` places, as equally often as can be, in a random order: who is taken once more than others is drawn, too.
std::vector<std::uint16_t> fair_cycle(std::span<const std::uint16_t> candidates, std::size_t sources, Rng& rng) {
  std::vector<std::uint32_t> extra(candidates.size()), order(sources);
  rng.permutation(extra);
  rng.permutation(order);
  std::vector<std::uint16_t> out(sources);
  for (std::size_t i = 0; i < sources; ++i) out[order[i]] = candidates[extra[i % candidates.size()]];
  return out;
}

/// Which replica of one expert each source sends all its copies to.
std::vector<std::uint16_t> choose(const ReplicaRule::Layer& layer, std::span<const Slot> slots, std::span<const Rank> rank_of, bool fair_in_node, Rng& rng) {
  constexpr std::uint16_t kOpen = 0xffff;
  const auto sources = static_cast<std::size_t>(layer.kept.rows);
  const Topology& topology = layer.topology;
  std::vector<std::uint16_t> out(sources, kOpen);
  for (std::size_t j = slots.size(); j-- > 0;) out[static_cast<std::size_t>(rank_of[static_cast<std::size_t>(slots[j])])] = static_cast<std::uint16_t>(j);

  const int nodes = std::max(1, topology.nodes());
  std::vector<std::vector<std::uint16_t>> in_node(static_cast<std::size_t>(nodes));
  const auto node_of = [&](Rank r) { return topology.ranks() == 0 ? std::size_t{0} : static_cast<std::size_t>(topology.node_of(r)); };
  for (std::size_t j = 0; j < slots.size(); ++j) in_node[node_of(rank_of[static_cast<std::size_t>(slots[j])])].push_back(static_cast<std::uint16_t>(j));
  std::vector<std::vector<Rank>> open(in_node.size() + 1);  // sources by node where it has replicas, and all others last
  for (const Rank s : ids<Rank>(static_cast<std::int64_t>(sources))) {
    if (out[static_cast<std::size_t>(s)] != kOpen) continue;
    const std::size_t n = node_of(s);
    // Where all replicas are in the node, it narrows nothing, and the choice is as open as anywhere.
    const bool narrows = !in_node[n].empty() && in_node[n].size() < slots.size();
    if (narrows && !fair_in_node)
      out[static_cast<std::size_t>(s)] = in_node[n].front();
    else
      open[narrows ? n : in_node.size()].push_back(s);
  }
  std::vector<std::uint16_t> all(slots.size());
  std::iota(all.begin(), all.end(), std::uint16_t{0});
  for (std::size_t n = 0; n < open.size(); ++n) {
    if (open[n].empty()) continue;
    const std::vector<std::uint16_t> drawn = fair_cycle(n < in_node.size() ? in_node[n] : all, open[n].size(), rng);
    for (std::size_t i = 0; i < drawn.size(); ++i) out[static_cast<std::size_t>(open[n][i])] = drawn[i];
  }
  return out;
}

}  // namespace

/// Each source rank uses one replica of each expert: one on the rank itself; else, where the node holds some but not all of them, the node's first; else each as often as any other, at random over the ranks that are left
/// (SGLang's `static` dispatch; its seed is 42, its random numbers are Python's and not these). The first of a node draws all of the node, so `in_node: fair` also deals there (as asked for in SGLang pull request 13423).
ReplicaRule nearest(Params& p, const Shape*) {
  ReplicaRule rule;
  rule.summary = "Each source uses one replica of each expert: its own, else its node's first, else all fairly at random (SGLang's `static`).";
  const bool fair = p.choice("in_node", "which of several replicas in the source's node: the `first`, or each `fair`ly for as many of its ranks", {"first", "fair"}, "first") == "fair";
  const auto seed = static_cast<std::uint64_t>(p.integer("seed", "of the random numbers", 42));
  if (!p.usable()) return rule;
  rule.decide = [=](const ReplicaRule::Layer& layer) -> ReplicaRule::Deal {
    const std::vector<Rank> rank_of = replicas::ranks_of_slots(layer.placement);
    const auto chosen = std::make_shared<std::vector<std::vector<std::uint16_t>>>(layer.placement.slots_of_expert.size());  // [E][R]; empty where there is no choice
    for (std::size_t e = 0; e < chosen->size(); ++e) {
      if (layer.placement.slots_of_expert[e].size() < 2) continue;
      Rng rng(seed, Stream::replica, e, static_cast<std::uint32_t>(layer.index));
      (*chosen)[e] = choose(layer, layer.placement.slots_of_expert[e], rank_of, fair, rng);
    }
    return [chosen](const ReplicaRule::Copies& copies, std::span<std::uint16_t> out) {
      std::ranges::fill(out, (*chosen)[static_cast<std::size_t>(copies.expert)][static_cast<std::size_t>(copies.source)]);
    };
  };
  return rule;
}

}  // namespace epsim::parts_replica
