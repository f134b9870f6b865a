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

}  // namespace

Reference reference(const Plan& plan, const std::function<std::vector<std::int32_t>(Rank home, Slot)>& tree, bool by_key, bool shared_expert, const std::vector<float>& x, ExpertBank& experts,
                    const std::function<void(int expert)>& load) {
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
    std::vector<float> in(choices.size() * static_cast<std::size_t>(h)), out(in.size());
    for (std::size_t i = 0; i < choices.size(); ++i) std::copy_n(x.begin() + choices[i] / k * h, h, in.begin() + static_cast<std::ptrdiff_t>(i) * h);
    run_expert(e, in, out);
    for (std::size_t i = 0; i < choices.size(); ++i) std::copy_n(out.begin() + static_cast<std::ptrdiff_t>(i) * h, h, results.begin() + choices[i] * h);
  }
  if (shared_expert && tokens > 0) run_expert(kSharedExpert, x, shared);

  std::vector<std::vector<std::int32_t>> keys;  // of the slots, for one home rank
  Rank home;
  Reference r{std::vector<float>(x.size()), std::vector<float>(x.size())};
  for (std::int64_t t = 0; t < tokens; ++t) {
    if (t == 0 || t >= plan.routing.first_token[home + 1]) {
      do home = Rank(home + 1);
      while (t >= plan.routing.first_token[home + 1]);
      keys.clear();
      for (const Slot s : ids<Slot>(plan.placement.slots())) keys.push_back(tree(home, s));
    }
    std::vector<Leaf> leaves;
    std::vector<WeightedRow> plain;
    for (std::int64_t c = t * k; c < (t + 1) * k; ++c)
      if (plan.slot[c] >= 0) {
        leaves.push_back({{results.data() + c * h, plan.routing.weight[c]}, &keys[static_cast<std::size_t>(plan.slot[c])]});
        plain.push_back(leaves.back().result);
      }
    const float* last = shared_expert ? shared.data() + t * h : nullptr;
    if (last) plain.push_back({last, 1});
    add_tree(leaves, 0, by_key, last, {r.y.data() + t * h, static_cast<std::size_t>(h)});
    add_rows(plain, {r.y_plain.data() + t * h, static_cast<std::size_t>(h)});
  }
  return r;
}

}  // namespace epsim
