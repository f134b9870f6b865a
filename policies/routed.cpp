#include "policies/routed.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/check.h"

namespace epsim {
namespace {

/// The choices as a capacity sees them.
Routing routing_of(const Router& router, const Capacity& capacity, const GateBatch& batch, std::span<const std::int32_t> expert, std::span<const float> weight) {
  Routing routing;
  routing.experts = batch.experts - router.idle.count(), routing.top_k = router.top_k, routing.may_choose_fewer = true;
  routing.first_token = batch.first_of_rank.empty() ? std::vector<std::int64_t>{0, batch.tokens} : std::vector<std::int64_t>(batch.first_of_rank.begin(), batch.first_of_rank.end());
  routing.weight.assign(weight.begin(), weight.end());
  if (capacity.order == Capacity::Order::priority && router.prioritise) {
    routing.priority.resize(static_cast<std::size_t>(batch.tokens));
    router.prioritise(batch, expert, routing.priority);
  }
  routing.expert.reserve(expert.size());
  for (const std::int32_t e : expert) routing.expert.push_back(e >= 0 ? static_cast<std::uint16_t>(e) : kNoExpert);
  return routing;
}

/// -1 where a choice is not made or does not fit, for all ranks.
std::vector<std::int32_t> marks(const Capacity& capacity, const Routing& routing, const GateBatch& batch, std::span<const std::int64_t> replicas = {}) {
  std::vector<std::int32_t> mark(routing.expert.size());
  for (std::size_t i = 0; i < mark.size(); ++i) mark[i] = -static_cast<std::int32_t>(!routing.computes(i));
  if (!capacity.limits || capacity.overflow == Capacity::Overflow::none) return mark;
  const Matrix<std::int64_t> choices = count_choices(routing);
  Matrix<std::int64_t> limits = capacity.limits(choices, routing);
  for (std::int64_t r = 0; r < limits.rows && !replicas.empty(); ++r)
    for (std::size_t e = 0; e < replicas.size(); ++e) limits.row(r)[e] *= replicas[e];
  const CapacityDraw draw{batch.seed, batch.layer, batch.first_token};
  for (const Rank r : ids<Rank>(routing.ranks())) {
    const auto k = static_cast<std::size_t>(routing.top_k), first = static_cast<std::size_t>(routing.first_token[r]) * k, last = static_cast<std::size_t>(routing.first_token[r + 1]) * k;
    mark_overflow(capacity, routing, r, choices.row(r.value), limits.row(r.value), draw, std::span(mark).subspan(first, last - first));
  }
  return mark;
}

/// Tokens [first, last) of each block of the capacity's scope.
std::vector<std::pair<std::int64_t, std::int64_t>> blocks_of(const Capacity& capacity, const Routing& routing) {
  if (capacity.scope == Capacity::Scope::batch) return {{0, routing.tokens()}};
  std::vector<std::pair<std::int64_t, std::int64_t>> blocks;
  for (int r = 0; r < routing.ranks(); ++r) {
    const std::int64_t begin = routing.first_token[static_cast<std::size_t>(r)], end = routing.first_token[static_cast<std::size_t>(r) + 1];
    const std::int64_t step = capacity.scope == Capacity::Scope::group && capacity.group > 0 ? capacity.group : std::max<std::int64_t>(end - begin, 1);
    for (std::int64_t first = begin; first < end; first += step) blocks.emplace_back(first, std::min(first + step, end));
  }
  return blocks;
}

/// Numbers the kept choices of each expert in the capacity's order, and gives the block's capacity.
std::int64_t number_block(const Capacity& capacity, const Routing& routing, std::int64_t first, std::int64_t last, std::span<const std::int32_t> mark, std::span<std::int32_t> position) {
  const std::int64_t k = routing.top_k;
  std::vector<std::int64_t> counts(static_cast<std::size_t>(routing.experts));
  std::vector<std::int32_t> next(counts.size());
  for (std::int64_t i = first * k; i < last * k; ++i)
    if (const auto c = static_cast<std::size_t>(i); routing.computes(c)) ++counts[routing.expert[c]];
  const auto number = [&](std::int64_t i) {
    if (mark[static_cast<std::size_t>(i)] >= 0) position[static_cast<std::size_t>(i)] = next[routing.expert[static_cast<std::size_t>(i)]]++;
  };
  std::vector<std::int64_t> order(static_cast<std::size_t>(last - first));
  std::iota(order.begin(), order.end(), first);
  if (capacity.order == Capacity::Order::priority)
    std::ranges::stable_sort(order, std::greater(), [&](std::int64_t t) { return routing.priority_of(t); });
  if (capacity.order == Capacity::Order::priority || capacity.order == Capacity::Order::choice) {
    for (std::int64_t c = 0; c < k; ++c)
      for (const std::int64_t t : order) number(t * k + c);
  } else {
    for (std::int64_t i = first * k; i < last * k; ++i) number(i);
  }
  return capacity.size ? capacity.size({last - first, routing.top_k, routing.experts, counts.empty() ? 0 : std::ranges::max(counts)}) : 0;
}

/// Gives choices that do not fit to their token's best expert that it has not chosen and that has room, first choices first; those that find none are not made.
void reassign(const Router& router, const Capacity& capacity, std::span<const std::int64_t> replicas, const GateBatch& batch, std::span<std::int32_t> expert, std::span<float> weight) {
  const Routing routing = routing_of(router, capacity, batch, expert, weight);
  const std::vector<std::int32_t> mark = marks(capacity, routing, batch, replicas);
  const std::int64_t k = routing.top_k;
  for (const auto& [first, last] : blocks_of(capacity, routing)) {
    std::vector<std::int64_t> counts(static_cast<std::size_t>(routing.experts)), room;
    for (std::int64_t i = first * k; i < last * k; ++i)
      if (const auto c = static_cast<std::size_t>(i); routing.computes(c)) ++counts[routing.expert[c]];
    room.assign(counts.size(), capacity.size({last - first, routing.top_k, routing.experts, counts.empty() ? 0 : std::ranges::max(counts)}));
    for (std::size_t e = 0; e < replicas.size(); ++e) room[e] *= replicas[e];
    for (std::int64_t i = first * k; i < last * k; ++i)
      if (mark[static_cast<std::size_t>(i)] >= 0) --room[routing.expert[static_cast<std::size_t>(i)]];
    for (std::int64_t c = 0; c < k; ++c)
      for (std::int64_t t = first; t < last; ++t) {
        const auto i = static_cast<std::size_t>(t * k + c);
        if (mark[i] >= 0 || !routing.computes(i)) continue;
        const std::span<const std::int32_t> mine = expert.subspan(static_cast<std::size_t>(t * k), static_cast<std::size_t>(k));
        const std::span<const float> logits = batch.row(t);
        std::int32_t best = -1;
        for (std::int32_t e = 0; e < routing.experts; ++e)
          if (room[static_cast<std::size_t>(e)] > 0 && std::ranges::find(mine, e) == mine.end() && (best < 0 || logits[static_cast<std::size_t>(e)] > logits[static_cast<std::size_t>(best)])) best = e;
        expert[i] = best;
        if (best >= 0) --room[static_cast<std::size_t>(best)];
      }
  }
  router.weigh(batch, expert, weight);
}

}  // namespace

Router next_best(Router router, Capacity capacity, std::vector<std::int64_t> replicas) {
  ensure(router.weigh && capacity.size && capacity.limits, "a router whose choices can be weighed anew, and a capacity with a size");
  Router out = router;
  out.scope = capacity.scope == Capacity::Scope::batch || router.scope == Router::Scope::batch ? Router::Scope::batch : Router::Scope::rank;
  out.may_choose_fewer = true;
  out.select = nullptr;
  out.choose = [router = std::move(router), capacity = std::move(capacity), replicas = std::move(replicas)](const GateBatch& batch, std::span<std::int32_t> experts, std::span<float> weights) {
    choose(router, batch, experts, weights);
    reassign(router, capacity, replicas, batch, experts, weights);
  };
  return out;
}

Routed route_batch(const Router& router, const Capacity& capacity, const GateBatch& batch) {
  ensure(batch.logits.size() == static_cast<std::size_t>(batch.tokens) * static_cast<std::size_t>(batch.experts), "a batch has a logit for each token and expert");
  if (capacity.chooses_again() && !router.prune) {
    Capacity then = capacity;
    then.overflow = Capacity::Overflow::drop;
    if (!router.weigh) throw InputError(Location{}, "an `overflow` to the next best expert needs a router whose weights follow from a token's logits and choices");
    return route_batch(next_best(router, then), then, batch);
  }
  Routed routed;
  routed.tokens = batch.tokens, routed.experts = batch.experts - router.idle.count(), routed.top_k = router.top_k;
  routed.expert.assign(static_cast<std::size_t>(batch.tokens * router.top_k), -1);
  routed.weight.assign(routed.expert.size(), 0);
  choose(router, batch, routed.expert, routed.weight);

  const Routing routing = routing_of(router, capacity, batch, routed.expert, routed.weight);
  std::vector<std::int32_t> mark = marks(capacity, routing, batch);
  const Matrix<std::int64_t> choices = count_choices(routing);
  routed.choices.resize(static_cast<std::size_t>(routed.experts));
  for (std::int64_t r = 0; r < choices.rows; ++r)
    for (std::size_t e = 0; e < routed.choices.size(); ++e) routed.choices[e] += choices.row(r)[e];
  routed.position.assign(mark.size(), -1);
  for (const auto& [first, last] : blocks_of(capacity, routing)) {
    const std::int64_t size = number_block(capacity, routing, first, last, mark, routed.position);
    if (capacity.limits && capacity.size) routed.capacity.push_back(size);
  }
  // Experts that compute nothing have room for all.
  for (std::size_t i = 0; i < mark.size(); ++i)
    if (routed.expert[i] >= routed.experts) mark[i] = 0;
  routed.kept.resize(mark.size());
  for (std::size_t i = 0; i < mark.size(); ++i) routed.kept[i] = mark[i] >= 0;
  if (router.prune) {
    router.prune(batch, routed.expert, routed.weight, routed.kept);
    for (std::size_t i = 0; i < mark.size(); ++i)
      if (!routed.kept[i]) mark[i] = routed.position[i] = -1;
  }
  routed.weight_after = routed.weight;
  for (std::size_t i = 0; i < mark.size(); ++i)
    if (mark[i] < 0) routed.weight_after[i] = 0;
  if (capacity.renormalise) renormalise_kept(routed.top_k, mark, routed.weight_after);
  return routed;
}

void route_backward(const Router& router, const Capacity& capacity, const GateBatch& batch, const Routed& routed, std::span<const float> d_weight_after, std::span<float> d_logits) {
  if (!router.backward) return;
  const auto k = static_cast<std::size_t>(routed.top_k);
  std::vector<float> d_weight(d_weight_after.begin(), d_weight_after.end());
  for (std::size_t i = 0; i < d_weight.size(); ++i)
    if (!routed.kept[i]) d_weight[i] = 0;
  for (std::size_t t = 0; capacity.renormalise && t < d_weight.size(); t += k) {
    double sum = 0, along = 0;
    for (std::size_t i = t; i < t + k; ++i)
      if (routed.kept[i]) sum += double{routed.weight[i]}, along += double{d_weight[i]} * double{routed.weight_after[i]};
    const double least = std::numeric_limits<float>::epsilon();
    for (std::size_t i = t; i < t + k; ++i)
      if (routed.kept[i]) d_weight[i] = static_cast<float>((double{d_weight[i]} - (sum > least ? along : 0)) / std::max(sum, least));
  }
  router.backward(batch, routed.expert, d_weight, d_logits);
}

}  // namespace epsim
