#include "policies/replica/shared/quotas.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/parallel.h"
#include "policies/solve/min_max_split.h"

namespace epsim::replicas {

std::vector<std::int64_t> copies_of_expert(const ReplicaRule::Layer& layer) {
  std::vector<std::int64_t> sum(static_cast<std::size_t>(layer.kept.columns));
  for (std::int64_t r = 0; r < layer.kept.rows; ++r)
    for (std::int64_t e = 0; e < layer.kept.columns; ++e) sum[static_cast<std::size_t>(e)] += layer.kept(r, e);
  return sum;
}

std::vector<Rank> ranks_of_slots(const Placement& placement) {
  std::vector<Rank> ranks;
  ranks.reserve(placement.expert_of_slot.size());
  for (const Rank r : ids<Rank>(placement.ranks())) ranks.resize(static_cast<std::size_t>(placement.first_slot[r + 1]), r);
  return ranks;
}

std::vector<std::int64_t> apportion(std::int64_t copies, std::span<const double> weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<std::int64_t> parts(weights.size());
  std::vector<std::pair<double, std::size_t>> rest;  // what rounding down took, negated; the largest comes first
  std::int64_t left = copies;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double exact = static_cast<double>(copies) * (sum > 0 ? weights[i] / sum : 1 / static_cast<double>(weights.size()));
    parts[i] = std::min(left, static_cast<std::int64_t>(std::floor(exact)));
    left -= parts[i];
    rest.emplace_back(static_cast<double>(parts[i]) - exact, i);
  }
  std::ranges::sort(rest);
  for (std::size_t i = 0; left > 0; i = (i + 1) % rest.size(), --left) ++parts[rest[i].second];
  return parts;
}

std::vector<std::int64_t> quotas_of_shares(const ReplicaRule::Layer& layer, std::span<const double> shares) {
  const std::vector<std::int64_t> copies = copies_of_expert(layer);
  std::vector<std::int64_t> quotas(layer.placement.expert_of_slot.size());
  std::vector<double> weights;
  for (std::size_t e = 0; e < copies.size(); ++e) {
    const std::vector<Slot>& replicas = layer.placement.slots_of_expert[e];
    weights.clear();
    for (const Slot s : replicas) weights.push_back(shares[static_cast<std::size_t>(s)]);
    const std::vector<std::int64_t> parts = apportion(copies[e], weights);
    for (std::size_t j = 0; j < replicas.size(); ++j) quotas[static_cast<std::size_t>(replicas[j])] = parts[j];
  }
  return quotas;
}

std::vector<std::int64_t> balanced_quotas(const ReplicaRule::Layer& layer) {
  const std::vector<Rank> rank_of = ranks_of_slots(layer.placement);
  std::vector<std::vector<int>> places(layer.placement.slots_of_expert.size());
  for (std::size_t e = 0; e < places.size(); ++e)
    for (const Slot s : layer.placement.slots_of_expert[e]) places[e].push_back(rank_of[static_cast<std::size_t>(s)]);
  const Split split = min_max_split(copies_of_expert(layer), places, layer.placement.ranks());
  std::vector<std::int64_t> quotas(layer.placement.expert_of_slot.size());
  for (std::size_t e = 0; e < places.size(); ++e)
    for (std::size_t j = 0; j < places[e].size(); ++j) quotas[static_cast<std::size_t>(layer.placement.slots_of_expert[e][j])] = split.amounts[e][j];
  return quotas;
}

SplitBy read_split(Params& p) {
  const std::string by = p.choice("split", "whose split over replicas: the placement's own shares where it plans any (`placement`), or always the one with the lowest fullest rank for this batch (`batch`)",
                                  {"placement", "batch"}, "placement");
  return by == "batch" ? SplitBy::batch : SplitBy::placement;
}

std::vector<std::int64_t> quotas(const ReplicaRule::Layer& layer, SplitBy by) {
  return by == SplitBy::placement && !layer.placement.share.empty() ? quotas_of_shares(layer, layer.placement.share) : balanced_quotas(layer);
}

namespace {

/// Of one expert: how many copies of each source each replica takes, [sources][replicas].
using Parts = std::vector<std::int64_t>;

/// What is still to be settled of one expert.
struct Open {
  std::vector<std::int64_t> of_source;  ///< [R] copies
  std::vector<std::int64_t> of_replica; ///< [c] quotas

  void settle(Parts& parts, std::size_t source, std::size_t replica, std::int64_t amount) {
    parts[source * of_replica.size() + replica] += amount;
    of_source[source] -= amount;
    of_replica[replica] -= amount;
  }
};

/// Spreads what is left in proportion: both sums come out exactly, because the part of a source in what is left never passes what is left of a quota.
void spread(Open& open, Parts& parts) {
  std::int64_t left = std::accumulate(open.of_source.begin(), open.of_source.end(), std::int64_t{0});
  std::vector<std::pair<std::int64_t, std::size_t>> rest;
  for (std::size_t s = 0; s < open.of_source.size(); ++s) {
    const std::int64_t mine = open.of_source[s];
    if (mine == 0) continue;
    rest.clear();
    std::int64_t more = mine;
    const std::vector<std::int64_t> quota = open.of_replica;
    for (std::size_t j = 0; j < quota.size(); ++j) {
      // As in 128 bits, since copies of a source times a quota may pass 63.
      const auto product = static_cast<unsigned __int128>(mine) * static_cast<unsigned __int128>(quota[j]);
      const auto whole = static_cast<std::int64_t>(product / static_cast<unsigned __int128>(left));
      rest.emplace_back(-static_cast<std::int64_t>(product % static_cast<unsigned __int128>(left)), j);
      open.settle(parts, s, j, whole);
      more -= whole;
    }
    std::ranges::sort(rest);
    for (std::size_t i = 0; more > 0; ++i, --more) open.settle(parts, s, rest[i].second, 1);
    left -= mine;
  }
}

}  // namespace

ReplicaRule::Deal deal_by_quota(const ReplicaRule::Layer& layer, std::span<const std::int64_t> quotas, Locality locality) {
  const auto ranks = static_cast<std::size_t>(layer.kept.rows);
  const std::vector<Rank> rank_of = ranks_of_slots(layer.placement);
  const auto parts = std::make_shared<std::vector<Parts>>(layer.placement.slots_of_expert.size());
  parallel_for(static_cast<std::int64_t>(parts->size()), [&](std::int64_t expert) {
    const auto e = static_cast<std::size_t>(expert);
    const std::vector<Slot>& replicas = layer.placement.slots_of_expert[e];
    if (replicas.size() < 2) return;
    Open open;
    for (std::size_t s = 0; s < ranks; ++s) open.of_source.push_back(layer.kept(static_cast<std::int64_t>(s), expert));
    for (const Slot s : replicas) open.of_replica.push_back(quotas[static_cast<std::size_t>(s)]);
    Parts& mine = (*parts)[e];
    mine.assign(ranks * replicas.size(), 0);
    const auto serve = [&](std::size_t j, std::size_t source) { open.settle(mine, source, j, std::min(open.of_source[source], open.of_replica[j])); };
    if (locality != Locality::none)
      for (std::size_t j = 0; j < replicas.size(); ++j) serve(j, static_cast<std::size_t>(rank_of[static_cast<std::size_t>(replicas[j])]));
    if (locality == Locality::node)
      for (std::size_t j = 0; j < replicas.size(); ++j)
        for (const Rank s : ids<Rank>(static_cast<std::int64_t>(ranks)))
          if (same_node(layer.topology, s, rank_of[static_cast<std::size_t>(replicas[j])])) serve(j, static_cast<std::size_t>(s));
    spread(open, mine);
  });
  return [parts](const ReplicaRule::Copies& copies, std::span<std::uint16_t> out) {
    const std::size_t c = copies.replicas.size();
    const std::int64_t* mine = (*parts)[static_cast<std::size_t>(copies.expert)].data() + static_cast<std::size_t>(copies.source) * c;
    auto at = out.begin();
    for (std::size_t j = 0; j < c; ++j) at = std::fill_n(at, mine[j], static_cast<std::uint16_t>(j));
  };
}

ReplicaRule::Deal deal_by_hash(const ReplicaRule::Layer& layer, std::span<const std::int64_t> quotas) {
  struct Table {
    Matrix<std::int64_t> before;                      ///< [R][E] copies of sources before this one
    std::vector<std::vector<std::int64_t>> quota_to;  ///< [E][c] sums of quotas up to each replica
  };
  const auto table = std::make_shared<Table>(Table{Matrix<std::int64_t>(layer.kept.rows, layer.kept.columns), {}});
  for (std::int64_t r = 1; r < layer.kept.rows; ++r)
    for (std::int64_t e = 0; e < layer.kept.columns; ++e) table->before(r, e) = table->before(r - 1, e) + layer.kept(r - 1, e);
  for (const std::vector<Slot>& replicas : layer.placement.slots_of_expert) {
    std::vector<std::int64_t>& to = table->quota_to.emplace_back();
    for (const Slot s : replicas) to.push_back((to.empty() ? 0 : to.back()) + quotas[static_cast<std::size_t>(s)]);
  }
  return [table](const ReplicaRule::Copies& copies, std::span<std::uint16_t> out) {
    if (out.empty()) return;
    const std::vector<std::int64_t>& to = table->quota_to[static_cast<std::size_t>(copies.expert)];
    const std::int64_t total = to.back(), step = 499 % total;
    std::int64_t at = (499 * (table->before(copies.source, copies.expert) % total) + 41) % total;
    for (std::uint16_t& choice : out) {
      // Replicas are few: counting those that are passed takes no branch that could not be foreseen.
      std::uint16_t replica = 0;
      for (std::size_t j = 0; j + 1 < to.size(); ++j) replica = static_cast<std::uint16_t>(replica + (at >= to[j]));
      choice = replica;
      at += step;
      if (at >= total) at -= total;
    }
  };
}

}  // namespace epsim::replicas
