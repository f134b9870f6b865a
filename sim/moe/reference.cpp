#include "sim/moe/reference.h"

#include <algorithm>

#include "sim/moe/buffers.h"

namespace epsim {
namespace {

/// A copy's result with the keys of its groups, outermost first.
struct Leaf {
  WeightedRow result;
  const std::vector<std::int32_t>* keys;
};

/// Adds leaves that agree in their first `level` keys: group by group in order of first appearance or of their keys, and inside the last level in choice order.
void add_tree(const std::vector<Leaf>& leaves, std::size_t level, bool by_key, const float* last, std::span<float> out) {
  std::vector<WeightedRow> terms;
  std::vector<std::vector<float>> sums;
  if (leaves.empty() || level == leaves.front().keys->size()) {
    for (const Leaf& l : leaves) terms.push_back(l.result);
  } else {
    std::vector<std::int32_t> groups;
    for (const Leaf& l : leaves)
      if (const std::int32_t key = (*l.keys)[level]; std::ranges::find(groups, key) == groups.end()) groups.push_back(key);
    if (by_key) std::ranges::sort(groups);
    for (const std::int32_t key : groups) {
      std::vector<Leaf> group;
      for (const Leaf& other : leaves)
        if ((*other.keys)[level] == key) group.push_back(other);
      add_tree(group, level + 1, by_key, nullptr, sums.emplace_back(out.size()));
    }
    for (const std::vector<float>& s : sums) terms.push_back({s.data(), 1});
  }
  if (last) terms.push_back({last, 1});
  add_rows(terms, out);
}

/// Rows of choices' tokens, side by side.
std::vector<float> rows_of(const std::vector<float>& all, std::span<const std::int64_t> choices, int k, std::int64_t h) {
  std::vector<float> rows(choices.size() * static_cast<std::size_t>(h));
  for (std::size_t i = 0; i < choices.size(); ++i) std::copy_n(all.begin() + choices[i] / k * h, h, rows.begin() + static_cast<std::ptrdiff_t>(i) * h);
  return rows;
}

/// Adds results [T][k][h] of kept choices, and the shared expert's [T][h] if there is one: at home behind everything, or as the last copy of the rank that computes it.
Reference add_copies(const Plan& plan, const AddingOrder& order, const std::vector<float>& results, const std::vector<float>& shared, std::int64_t h) {
  const std::int64_t tokens = plan.routing.tokens();
  const int k = plan.routing.top_k;
  std::vector<std::int32_t> rank_of_slot;
  for (const Slot s : ids<Slot>(plan.placement.slots())) rank_of_slot.push_back(plan.placement.rank_of(s));
  std::vector<std::vector<std::int32_t>> keys;  // of the ranks, for one home rank
  Rank home;
  Reference r{std::vector<float>(static_cast<std::size_t>(tokens * h)), {}};
  r.y_plain.resize(r.y.size());
  for (std::int64_t t = 0; t < tokens; ++t) {
    if (t == 0 || t >= plan.routing.first_token[home + 1]) {
      do home = Rank(home + 1);
      while (t >= plan.routing.first_token[home + 1]);
      keys.clear();
      for (const Rank at : ids<Rank>(plan.ranks())) keys.push_back(order.keys(home, at));
    }
    std::vector<Leaf> leaves;
    std::vector<WeightedRow> plain;
    for (std::int64_t c = t * k; c < (t + 1) * k; ++c)
      if (plan.slot[c] >= 0) {
        leaves.push_back({{results.data() + c * h, plan.routing.weight[c]}, &keys[static_cast<std::size_t>(rank_of_slot[static_cast<std::size_t>(plan.slot[c])])]});
        plain.push_back(leaves.back().result);
      }
    const float* last = !shared.empty() ? shared.data() + t * h : nullptr;
    if (last) plain.push_back({last, 1});
    if (const Rank at = plan.shared_rank.empty() ? home : plan.shared_rank[static_cast<std::size_t>(t)]; last && at != home) leaves.push_back({plain.back(), &keys[static_cast<std::size_t>(at)]}), last = nullptr;
    add_tree(leaves, 0, order.by_key, last, {r.y.data() + t * h, static_cast<std::size_t>(h)});
    add_rows(plain, {r.y_plain.data() + t * h, static_cast<std::size_t>(h)});
  }
  return r;
}

/// The tokens whose shared expert each rank computes: [R].
std::vector<std::vector<std::int64_t>> shared_tokens(const Plan& plan) {
  std::vector<std::vector<std::int64_t>> tokens(static_cast<std::size_t>(plan.ranks()));
  for (const Rank home : ids<Rank>(plan.ranks()))
    for (std::int64_t t = plan.routing.first_token[home]; t < plan.routing.first_token[home + 1]; ++t)
      tokens[static_cast<std::size_t>(plan.shared_rank.empty() ? home : plan.shared_rank[static_cast<std::size_t>(t)])].push_back(t);
  return tokens;
}

}  // namespace

AddingOrder adding_order(const Exchange& exchange, const Plan& plan, const Topology& topology) {
  return {[&](Rank home, Rank at) { return exchange.tree(plan, topology, home, at); }, exchange.tree_by_key};
}

Reference reference(const Plan& plan, const AddingOrder& order, bool shared_expert, const std::vector<float>& x, ExpertBank& experts, const std::function<void(int expert)>& load, const IdleBank& idle) {
  const std::int64_t tokens = plan.routing.tokens(), h = experts.hidden();
  const int k = plan.routing.top_k;
  std::vector<float> results(static_cast<std::size_t>(tokens * k * h)), shared(static_cast<std::size_t>(shared_expert ? tokens * h : 0));
  const auto run_expert = [&](int expert, std::span<const float> in, std::span<float> out) {
    load(expert);
    experts.forward(expert, in, out);
    experts.remove(expert);
  };

  for (int e = 0; e < plan.routing.experts; ++e) {
    std::vector<std::int64_t> choices;
    for (std::int64_t c = 0; c < tokens * k; ++c)
      if (plan.slot[c] >= 0 && plan.routing.expert[c] == e) choices.push_back(c);
    if (choices.empty()) continue;
    const std::vector<float> in = rows_of(x, choices, k, h);
    std::vector<float> out(in.size());
    run_expert(e, in, out);
    for (std::size_t i = 0; i < choices.size(); ++i) std::copy_n(out.begin() + static_cast<std::ptrdiff_t>(i) * h, h, results.begin() + choices[i] * h);
  }
  if (shared_expert && tokens > 0) run_expert(kSharedExpert, x, shared);
  Reference done = add_copies(plan, order, results, shared, h);
  for (const Rank home : ids<Rank>(plan.ranks()))
    for (std::vector<float>* y : {&done.y, &done.y_plain}) add_idle(idle, plan, home, of_home(plan, home, h, x), of_home(plan, home, h, *y));
  return done;
}

PlanGradients reference_backward(const Plan& plan, const AddingOrder& order, bool shared_expert, const std::vector<float>& x, const std::vector<float>& r, ExpertBank& experts,
                                 const std::function<void(int expert)>& load, const IdleBank& idle) {
  const std::int64_t tokens = plan.routing.tokens(), h = experts.hidden();
  const int k = plan.routing.top_k;
  std::vector<float> results(static_cast<std::size_t>(tokens * k * h)), shared(static_cast<std::size_t>(shared_expert ? tokens * h : 0));
  PlanGradients gradients;
  gradients.d_weight.resize(plan.slot.size());
  // Both passes of some rows; gives their gradients and the weights'.
  const auto run = [&](int expert, ExpertRows& rows, const std::vector<float>& in, const std::vector<float>& dy, std::span<float> dx, std::span<const float> weight) {
    std::vector<float> out(in.size());
    rows.forward(experts, expert, in, out);
    rows.backward(experts, expert, dy, dx);
    const ExpertRows* const all[] = {&rows};
    return weight_gradients(experts.shape(expert), all, weight);
  };

  for (int e = 0; e < plan.routing.experts; ++e) {
    load(e);
    std::vector<std::vector<float>> parts;
    for (const Slot slot : plan.placement.slots_of_expert[static_cast<std::size_t>(e)]) {
      ExpertRows rows;
      for (std::int64_t c = 0; c < tokens * k; ++c)
        if (plan.slot[c] == slot) rows.place.push_back(c);
      std::vector<float> dx(rows.place.size() * static_cast<std::size_t>(h));
      parts.push_back(run(e, rows, rows_of(x, rows.place, k, h), rows_of(r, rows.place, k, h), dx, plan.routing.weight));
      for (std::size_t i = 0; i < rows.place.size(); ++i) {
        std::copy_n(dx.begin() + static_cast<std::ptrdiff_t>(i) * h, h, results.begin() + rows.place[i] * h);
        gradients.d_weight[static_cast<std::size_t>(rows.place[i])] = rows.d_weight[i];
      }
    }
    gradients.experts.push_back(add_replicas(parts));
    experts.remove(e);
  }
  if (shared_expert) {
    load(kSharedExpert);
    std::vector<std::vector<float>> parts;
    for (const std::vector<std::int64_t>& of_rank : shared_tokens(plan)) {
      ExpertRows rows;
      rows.place = of_rank;
      std::vector<float> dx(of_rank.size() * static_cast<std::size_t>(h));
      parts.push_back(run(kSharedExpert, rows, rows_of(x, of_rank, 1, h), rows_of(r, of_rank, 1, h), dx, {}));
      for (std::size_t i = 0; i < of_rank.size(); ++i) std::copy_n(dx.begin() + static_cast<std::ptrdiff_t>(i) * h, h, shared.begin() + of_rank[i] * h);
    }
    gradients.shared = add_replicas(parts);
    experts.remove(kSharedExpert);
  }
  gradients.x = add_copies(plan, order, results, shared, h).y;
  std::vector<std::vector<float>> constant, constant_gate;
  for (const Rank home : ids<Rank>(plan.ranks())) {
    LayerWeights of_rank = add_idle_backward(idle, plan, home, of_home(plan, home, h, x), of_home(plan, home, h, r), of_home(plan, home, h, gradients.x), of_home(plan, home, k, gradients.d_weight));
    constant.push_back(std::move(of_rank.constant)), constant_gate.push_back(std::move(of_rank.constant_gate));
  }
  gradients.constant = add_replicas(constant), gradients.constant_gate = add_replicas(constant_gate);
  return gradients;
}

}  // namespace epsim
