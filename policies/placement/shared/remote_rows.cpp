#include "policies/placement/shared/remote_rows.h"

#include <algorithm>
#include <map>

namespace epsim {

RemoteRows::RemoteRows(const Problem& problem, std::size_t layer, std::vector<Rank> rank) : rank_(std::move(rank)), of_expert_(rank_.size()), rows_(problem.ranks, problem.ranks) {
  const auto n = static_cast<std::size_t>(problem.ranks);
  in_.resize(n), out_.resize(n), most_to_.resize(n);
  std::map<std::pair<std::int32_t, std::vector<std::uint16_t>>, std::int64_t> tokens;
  for (const std::shared_ptr<const Routing>& batch : problem.tokens[layer]) {
    top_k_ = std::max(top_k_, static_cast<std::size_t>(batch->top_k));
    for (const Rank home : ids<Rank>(batch->ranks()))
      for (std::int64_t t = batch->first_token[home]; t < batch->first_token[home + 1]; ++t) {
        const auto first = batch->expert.begin() + t * batch->top_k;
        std::vector<std::uint16_t> experts(first, first + batch->top_k);
        std::ranges::sort(experts);
        ++tokens[{static_cast<std::int32_t>(home), std::move(experts)}];
      }
  }
  for (const auto& [key, count] : tokens) {
    const auto& [home, experts] = key;
    const auto bundle = static_cast<std::uint32_t>(bundles_.size());
    bundles_.push_back({Rank(home), count});
    expert_.insert(expert_.end(), experts.begin(), experts.end());
    expert_.resize(bundles_.size() * top_k_, experts.front());
    for (const std::uint16_t e : experts)
      if (of_expert_[e].empty() || of_expert_[e].back() != bundle) of_expert_[e].push_back(bundle);
    std::vector<Rank> to;
    for (const std::uint16_t e : experts) to.push_back(rank_[e]);
    std::ranges::sort(to);
    to.erase(std::unique(to.begin(), to.end()), to.end());
    for (const Rank r : to) add(bundles_.back(), r, count);
  }
  for (const Rank r : ids<Rank>(problem.ranks)) settle(r);
}

void RemoteRows::add(const Bundle& bundle, Rank to, std::int64_t tokens) {
  if (bundle.home == to) return;
  rows_(to, bundle.home) += tokens;
  in_[to] += tokens, out_[bundle.home] += tokens, all_ += tokens;
}

void RemoteRows::settle(Rank to) { most_to_[to] = std::ranges::max(rows_.row(static_cast<std::int64_t>(to))); }

void RemoteRows::move(int expert, Rank to) {
  const Rank from = rank_of(expert);
  if (from == to) return;
  for (const std::uint32_t b : of_expert_[static_cast<std::size_t>(expert)]) {
    bool stays = false, is_there = false;
    for (const std::uint16_t other : experts_of(b)) {
      if (other == expert) continue;
      stays |= rank_[other] == from, is_there |= rank_[other] == to;
    }
    const Bundle& bundle = bundles_[b];
    if (!stays) add(bundle, from, -bundle.tokens);
    if (!is_there) add(bundle, to, bundle.tokens);
  }
  rank_[static_cast<std::size_t>(expert)] = to;
  settle(from), settle(to);
}

RemoteRows::Cost RemoteRows::cost(Order order) const {
  const std::int64_t in = std::ranges::max(in_), pair = std::ranges::max(most_to_);
  return order == Order::all ? Cost{all_, in, pair} : Cost{std::max(in, std::ranges::max(out_)), pair, all_};
}

Rank RemoteRows::busiest() const {
  Rank busiest(0);
  std::int64_t most = -1;
  for (const Rank r : ids<Rank>(rows_.rows))
    if (const std::int64_t rows = std::max(in_[r], out_[r]); rows > most) busiest = r, most = rows;
  return busiest;
}

std::vector<std::int64_t> RemoteRows::affinity(int expert) const {
  std::vector<std::int64_t> affinity(in_.size());
  std::vector<Rank> near;
  for (const std::uint32_t b : of_expert_[static_cast<std::size_t>(expert)]) {
    near.assign(1, bundles_[b].home);
    for (const std::uint16_t other : experts_of(b))
      if (other != expert && std::ranges::find(near, rank_[other]) == near.end()) near.push_back(rank_[other]);
    for (const Rank r : near) affinity[r] += bundles_[b].tokens;
  }
  return affinity;
}

namespace {

/// An expert that goes to a rank, and the one that comes from there; -1: none.
struct Change {
  int expert;
  Rank to;
  int other;
  std::int64_t fewer = 0;  ///< rows, at most; the most promising changes are tried first
};

/// Makes a change if the cost becomes less.
bool improves(RemoteRows& rows, RemoteRows::Order order, RemoteRows::Cost& now, const Change& c) {
  const Rank from = rows.rank_of(c.expert);
  rows.move(c.expert, c.to);
  if (c.other >= 0) rows.move(c.other, from);
  if (const RemoteRows::Cost then = rows.cost(order); then < now) {
    now = then;
    return true;
  }
  if (c.other >= 0) rows.move(c.other, c.to);
  rows.move(c.expert, from);
  return false;
}

}  // namespace

std::vector<Rank> fewer_remote_rows(RemoteRows rows, RemoteRows::Order order, int least, int most, std::int64_t changes) {
  const int experts = static_cast<int>(rows.ranks().size());
  std::vector<int> size;
  std::vector<std::vector<std::int64_t>> affinity;  // by which a change can at most be the better: two that leave each other's rank for the other's still meet
  const auto refresh = [&] {
    const int ranks = static_cast<int>(rows.affinity(0).size());
    size.assign(static_cast<std::size_t>(ranks), 0);
    for (const Rank r : rows.ranks()) ++size[r];
    affinity.clear();
    if (order == RemoteRows::Order::all)
      for (int e = 0; e < experts; ++e) affinity.push_back(rows.affinity(e));
  };
  RemoteRows::Cost now = rows.cost(order);
  for (bool found = true; found && changes > 0; changes -= found) {
    found = false;
    refresh();
    std::vector<Change> candidates;
    const Rank busiest = rows.busiest();
    const auto consider = [&](Change c) {
      const Rank from = rows.rank_of(c.expert);
      if (order == RemoteRows::Order::all) {
        const auto gain = [&](int e, Rank a, Rank b) { return affinity[static_cast<std::size_t>(e)][b] - affinity[static_cast<std::size_t>(e)][a]; };
        c.fewer = gain(c.expert, from, c.to) + (c.other >= 0 ? gain(c.other, c.to, from) : 0);
        if (c.fewer <= 0) return;
      } else {
        c.fewer = from == busiest || c.to == busiest;  // these are tried first
      }
      candidates.push_back(c);
    };
    for (int e = 0; e < experts; ++e) {
      const Rank from = rows.rank_of(e);
      for (const Rank to : ids<Rank>(static_cast<std::int64_t>(size.size())))
        if (to != from && size[from] > least && size[to] < most) consider({e, to, -1});
      for (int other = e + 1; other < experts; ++other)
        if (rows.rank_of(other) != from) consider({e, rows.rank_of(other), other});
    }
    std::ranges::stable_sort(candidates, std::greater(), &Change::fewer);
    found = std::ranges::any_of(candidates, [&](const Change& c) { return improves(rows, order, now, c); });
  }
  return rows.ranks();
}

}  // namespace epsim
