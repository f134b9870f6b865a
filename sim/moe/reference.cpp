#include "sim/moe/reference.h"

#include <algorithm>

#include "sim/moe/buffers.h"

namespace epsim {
namespace {

/// A kept copy's result with the keys of its groups, outermost first.
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

/// Adds results [T][k][h] of kept choices, and the shared expert's [T][h] if there is one.
Reference add_copies(const Plan& plan, const AddingOrder& order, const std::vector<float>& results, const std::vector<float>& shared, std::int64_t h) {
  const std::int64_t tokens = plan.routing.tokens();
  const int k = plan.routing.top_k;
  std::vector<std::vector<std::int32_t>> keys;  // of the slots, for one home rank
  Rank home;
  Reference r{std::vector<float>(static_cast<std::size_t>(tokens * h)), {}};
  r.y_plain.resize(r.y.size());
  for (std::int64_t t = 0; t < tokens; ++t) {
    if (t == 0 || t >= plan.routing.first_token[home + 1]) {
      do home = Rank(home + 1);
      while (t >= plan.routing.first_token[home + 1]);
      keys.clear();
      for (const Slot s : ids<Slot>(plan.placement.slots())) keys.push_back(order.keys(home, s));
    }
    std::vector<Leaf> leaves;
    std::vector<WeightedRow> plain;
    for (std::int64_t c = t * k; c < (t + 1) * k; ++c)
      if (plan.slot[c] >= 0) {
        leaves.push_back({{results.data() + c * h, plan.routing.weight[c]}, &keys[static_cast<std::size_t>(plan.slot[c])]});
        plain.push_back(leaves.back().result);
      }
    const float* last = !shared.empty() ? shared.data() + t * h : nullptr;
    if (last) plain.push_back({last, 1});
    add_tree(leaves, 0, order.by_key, last, {r.y.data() + t * h, static_cast<std::size_t>(h)});
    add_rows(plain, {r.y_plain.data() + t * h, static_cast<std::size_t>(h)});
  }
  return r;
}

}  // namespace

AddingOrder adding_order(const Exchange& exchange, const Plan& plan, const Topology& topology) {
  return {[&](Rank home, Slot s) { return exchange.tree(plan, topology, home, s); }, exchange.tree_by_key};
}

Reference reference(const Plan& plan, const AddingOrder& order, bool shared_expert, const std::vector<float>& x, ExpertBank& experts, const std::function<void(int expert)>& load) {
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
  return add_copies(plan, order, results, shared, h);
}

PlanGradients reference_backward(const Plan& plan, const AddingOrder& order, bool shared_expert, const std::vector<float>& x, const std::vector<float>& r, ExpertBank& experts,
                                 const std::function<void(int expert)>& load) {
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
    for (const Rank home : ids<Rank>(plan.ranks())) {
      const std::int64_t first = plan.routing.first_token[home], last = plan.routing.first_token[home + 1];
      ExpertRows rows;
      for (std::int64_t t = first; t < last; ++t) rows.place.push_back(t);
      const auto part = [&](const std::vector<float>& all) { return std::vector<float>(all.begin() + first * h, all.begin() + last * h); };
      parts.push_back(run(kSharedExpert, rows, part(x), part(r), std::span(shared).subspan(static_cast<std::size_t>(first * h), static_cast<std::size_t>((last - first) * h)), {}));
    }
    gradients.shared = add_replicas(parts);
    experts.remove(kSharedExpert);
  }
  gradients.x = add_copies(plan, order, results, shared, h).y;
  return gradients;
}

}  // namespace epsim
