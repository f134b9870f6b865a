#include "policies/plan.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <memory>

#include "base/check.h"
#include "base/parallel.h"
#include "base/vectorise.h"

namespace epsim {
namespace {

/// The choices of one home rank, token by token.
struct HomeBlock {
  std::span<const std::uint16_t> expert;
  std::span<const float> weight;
  std::span<std::int32_t> slot;
  int top_k = 0;
};

/// Where the next of an expert's choices lies in a list, and how far the one after it is.
struct Cursor {
  std::uint32_t next, step;
};

HomeBlock block_of(Plan& plan, Rank r) {
  const auto k = static_cast<std::size_t>(plan.routing.top_k);
  const std::size_t begin = static_cast<std::size_t>(plan.routing.first_token[r]) * k;
  const std::size_t count = static_cast<std::size_t>(plan.routing.first_token[r + 1]) * k - begin;
  return {std::span(plan.routing.expert).subspan(begin, count), std::span(plan.routing.weight).subspan(begin, count),
          std::span(plan.slot).subspan(begin, count), plan.routing.top_k};
}

/// Smaller where the weight is larger. Total even for NaN, so that no input can upset a search.
std::uint32_t priority_key(float weight) {
  const auto bits = std::bit_cast<std::uint32_t>(weight + 0.0F);  // -0 becomes 0
  return bits ^ (bits >> 31 ? 0 : 0x7fffffffU);
}

/// The n-th smallest of some keys.
struct Nth {
  std::uint32_t key;
  std::int64_t below;  ///< keys that are smaller
};

/// The n-th smallest key (n from 0), bit by bit from the highest. Counting takes no branch and no order, so each of the 32 passes runs at the speed of vectors.
EPSIM_VECTORISE Nth nth_smallest(const std::uint32_t* keys, std::size_t count, std::int64_t n) {
  Nth nth{0, 0};
  for (std::uint32_t bit = 1U << 31; bit != 0; bit >>= 1) {
    std::uint32_t below = 0;
    for (std::size_t i = 0; i < count; ++i) below += keys[i] < (nth.key | bit);
    if (below <= n) nth = {nth.key | bit, below};
  }
  return nth;
}

/// The choices of each expert that overflows, expert by expert in token order.
struct Overflow {
  std::vector<std::size_t> first;    ///< [E+1]
  std::vector<std::uint32_t> choice;
  std::vector<std::uint32_t> key;    ///< its priority

  Overflow(const HomeBlock& block, std::span<const std::int64_t> choices, std::span<const std::int64_t> limits) : first(choices.size() + 1) {
    for (std::size_t e = 0; e < choices.size(); ++e) first[e + 1] = first[e] + (choices[e] > limits[e] ? static_cast<std::size_t>(choices[e]) : 0);
    // An expert that keeps all writes its choices, without a branch that could not be foreseen, over each other and behind the others'.
    std::vector<Cursor> cursors(choices.size());
    for (std::size_t e = 0; e < choices.size(); ++e)
      cursors[e] = choices[e] > limits[e] ? Cursor{static_cast<std::uint32_t>(first[e]), 1} : Cursor{static_cast<std::uint32_t>(first.back()), 0};
    choice.resize(first.back() + 1), key.resize(first.back() + 1);
    for (std::size_t i = 0; i < block.expert.size(); ++i) {
      Cursor& at = cursors[block.expert[i]];
      choice[at.next] = static_cast<std::uint32_t>(i);
      key[at.next] = priority_key(block.weight[i]);
      at.next += at.step;
    }
  }
};

/// Writes -1 to the slots of the choices that do not fit.
void drop_overflow(const HomeBlock& block, Capacity::Order order, std::span<const std::int64_t> choices, std::span<const std::int64_t> limits) {
  const Overflow overflow(block, choices, limits);
  for (std::size_t e = 0; e < choices.size(); ++e) {
    const std::size_t first = overflow.first[e], last = overflow.first[e + 1];
    if (first == last) continue;
    const std::uint32_t* keys = overflow.key.data() + first;
    const std::uint32_t* mine = overflow.choice.data() + first;
    if (order == Capacity::Order::position) {
      for (std::size_t i = static_cast<std::size_t>(limits[e]); i < last - first; ++i) block.slot[mine[i]] = -1;
      continue;
    }
    const Nth excess = nth_smallest(keys, last - first, limits[e]);  // the first that is too many
    for (std::size_t i = 0; i < last - first; ++i) block.slot[mine[i]] = -static_cast<std::int32_t>(keys[i] >= excess.key);
    std::int64_t equals = limits[e] - excess.below;  // the first of those as good as it are kept, if there is room
    for (std::size_t i = 0; equals > 0; ++i)
      if (keys[i] == excess.key) block.slot[mine[i]] = 0, --equals;
  }
}

/// The kept choices of each expert with several replicas, expert by expert in token order.
struct ReplicatedChoices {
  std::vector<std::size_t> first;  ///< [E+1]
  std::vector<std::uint32_t> choice;

  ReplicatedChoices() = default;
  ReplicatedChoices(const HomeBlock& block, std::span<const std::int64_t> kept, const Placement& placement) : first(kept.size() + 1) {
    for (std::size_t e = 0; e < kept.size(); ++e) first[e + 1] = first[e] + (placement.slots_of_expert[e].size() > 1 ? static_cast<std::size_t>(kept[e]) : 0);
    choice.resize(first.back());
    std::vector<std::size_t> next(first.begin(), first.end() - 1);
    for (std::size_t i = 0; i < block.expert.size(); ++i) {
      const std::size_t e = block.expert[i];
      if (block.slot[i] >= 0 && first[e] != first[e + 1]) choice[next[e]++] = static_cast<std::uint32_t>(i);
    }
  }
};

/// Replaces the 0 of each kept choice by the slot its copy goes to, and counts copies by slot; gives what was lost.
DropCounts deal_copies(Rank source, const HomeBlock& block, std::span<const std::int64_t> kept, const Placement& placement, const ReplicaRule& rule,
                       const ReplicaRule::Deal& deal, std::span<std::int64_t> copies) {
  ReplicatedChoices replicated;
  if (rule.by_choice) replicated = ReplicatedChoices(block, kept, placement);
  // The slots that each expert's copies go to, expert by expert; one slot for all of an expert with one replica. One more is read, not used, behind the last.
  std::vector<Cursor> cursors(kept.size());
  std::vector<std::int32_t> slots;
  std::vector<std::uint16_t> dealt;
  bool legal = true;
  for (std::size_t e = 0; e < kept.size(); ++e) {
    const std::vector<Slot>& replicas = placement.slots_of_expert[e];
    cursors[e] = {static_cast<std::uint32_t>(slots.size()), replicas.size() > 1 ? 1U : 0U};
    if (replicas.size() == 1) {
      slots.push_back(replicas.front());
      copies[static_cast<std::size_t>(replicas.front())] += kept[e];
    }
    if (replicas.size() <= 1 || kept[e] == 0) continue;
    dealt.assign(static_cast<std::size_t>(kept[e]), 0);
    ReplicaRule::Copies of_expert{source, Expert(static_cast<std::int64_t>(e)), replicas, {}};
    if (rule.by_choice) of_expert.choice = std::span(replicated.choice).subspan(replicated.first[e], dealt.size());
    deal(of_expert, dealt);
    for (const std::uint16_t choice : dealt) {
      legal &= choice < replicas.size();
      slots.push_back(replicas[std::min<std::size_t>(choice, replicas.size() - 1)]);
      ++copies[static_cast<std::size_t>(slots.back())];
    }
  }
  slots.push_back(0);
  ensure(legal, "a replica rule deals to replicas that there are");

  DropCounts drops;
  const auto k = static_cast<std::size_t>(block.top_k);
  for (std::size_t i = 0; i < block.expert.size(); i += k) {
    int lost = 0;
    double weight = 0;  // of one token: what is added to the sum of all need not wait for every choice
    for (std::size_t j = i; j < i + k; ++j) {
      // All ones where the choice is dropped: a branch on it could not be foreseen.
      const std::int32_t dropped = block.slot[j];
      Cursor& at = cursors[block.expert[j]];
      block.slot[j] = slots[at.next] | dropped;
      at.next += at.step & ~static_cast<std::uint32_t>(dropped);
      lost -= dropped;
      weight += static_cast<double>(std::bit_cast<float>(std::bit_cast<std::int32_t>(block.weight[j]) & dropped));
    }
    drops.weight += weight;
    drops.choices += lost;
    drops.partial_tokens += lost > 0 && lost < block.top_k;
    drops.total_tokens += lost == block.top_k;
  }
  return drops;
}

void check_sizes(const Plan& plan) {
  const Routing& routing = plan.routing;
  const auto total = static_cast<std::size_t>(routing.tokens()) * static_cast<std::size_t>(routing.top_k);
  ensure(routing.top_k > 0 && routing.expert.size() == total && routing.weight.size() == total, "a routing has k choices and weights for each token");
  ensure(plan.placement.ranks() == routing.ranks(), "routing and placement are for the same ranks");
  plan.placement.check(routing.experts);
  for (const std::vector<Slot>& replicas : plan.placement.slots_of_expert) ensure(replicas.size() <= 65'536, "an expert has at most 65,536 replicas");
  for (int r = 0; r < routing.ranks(); ++r)
    ensure((routing.first_token[r + 1] - routing.first_token[r]) * routing.top_k < std::int64_t{1} << 32, "a rank makes fewer than 2^32 choices");
}

}  // namespace

std::vector<std::int64_t> Plan::copies_of_slot() const {
  std::vector<std::int64_t> sum(static_cast<std::size_t>(placement.slots()));
  for (std::int64_t r = 0; r < copies.rows; ++r)
    for (std::int64_t s = 0; s < copies.columns; ++s) sum[static_cast<std::size_t>(s)] += copies(r, s);
  return sum;
}

std::vector<std::int64_t> Plan::copies_of_rank() const {
  const std::vector<std::int64_t> of_slot = copies_of_slot();
  std::vector<std::int64_t> sum(static_cast<std::size_t>(placement.ranks()));
  for (std::size_t r = 0; r < sum.size(); ++r)
    for (std::int32_t s = placement.first_slot[r]; s < placement.first_slot[r + 1]; ++s) sum[r] += of_slot[static_cast<std::size_t>(s)];
  return sum;
}

std::string Plan::digest() const {
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), &XXH3_freeState);
  ensure(state && XXH3_128bits_reset(state.get()) == XXH_OK, "the digest has memory");
  const auto add = [&](const auto& values) {
    if (!values.empty()) XXH3_128bits_update(state.get(), values.data(), values.size() * sizeof(*values.data()));
  };
  // The sizes come first, so that no two plans spell the same bytes.
  add(std::vector<std::int64_t>{layer, routing.ranks(), routing.experts, routing.top_k, routing.tokens(), placement.ranks(), placement.slots()});
  add(routing.first_token);
  add(routing.expert);
  add(routing.weight);
  add(slot);
  add(placement.expert_of_slot);
  add(placement.first_slot);
  for (const std::vector<Slot>& replicas : placement.slots_of_expert) add(replicas);
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state.get()));
  std::string hex;
  for (const unsigned char byte : canonical.digest)
    for (const int nibble : {byte >> 4, byte & 15}) hex += "0123456789abcdef"[nibble];
  return hex;
}

Plan make_plan(int layer, Routing routing, const Capacity& capacity, Placement placement, const ReplicaRule& replica, const Topology& topology) {
  Matrix<std::int64_t> choices = count_choices(routing);
  return make_plan(layer, std::move(routing), std::move(choices), capacity, std::move(placement), replica, topology);
}

Plan make_plan(int layer, Routing routing, Matrix<std::int64_t> choices, const Capacity& capacity, Placement placement, const ReplicaRule& replica,
               const Topology& topology) {
  Plan plan;
  plan.layer = layer;
  plan.routing = std::move(routing);
  plan.placement = std::move(placement);
  check_sizes(plan);
  const int ranks = plan.ranks();
  plan.choices = std::move(choices);
  if (capacity.limits) plan.limits = capacity.limits(plan.choices, plan.routing);
  const bool limited = !plan.limits.cells.empty();
  ensure(!limited || (plan.limits.rows == ranks && plan.limits.columns == plan.routing.experts), "a capacity limits each rank and expert, or nothing");

  // How many are kept follows from the counts alone, before any choice is looked at: the replica rule may plan globally.
  Matrix<std::int64_t> kept = plan.choices;
  std::vector<char> overflows(static_cast<std::size_t>(ranks));
  for (std::int64_t r = 0; limited && r < ranks; ++r)
    for (std::int64_t e = 0; e < kept.columns; ++e) {
      ensure(plan.limits(r, e) >= 0, "a capacity is not negative");
      if (kept(r, e) <= plan.limits(r, e)) continue;
      kept(r, e) = plan.limits(r, e);
      overflows[static_cast<std::size_t>(r)] = 1;
    }
  const ReplicaRule::Deal deal = replica.decide({layer, plan.routing.top_k, kept, plan.placement, topology});

  plan.slot.assign(plan.routing.expert.size(), 0);
  plan.copies = Matrix<std::int64_t>(ranks, plan.placement.slots());
  std::vector<DropCounts> drops(static_cast<std::size_t>(ranks));
  parallel_for(ranks, [&](std::int64_t r) {
    const HomeBlock block = block_of(plan, Rank(r));
    if (overflows[static_cast<std::size_t>(r)]) drop_overflow(block, capacity.order, plan.choices.row(r), plan.limits.row(r));
    drops[static_cast<std::size_t>(r)] = deal_copies(Rank(r), block, kept.row(r), plan.placement, replica, deal, plan.copies.row(r));
  });
  // Added rank by rank: the sum of weights has the same bits for any number of threads.
  for (const DropCounts& d : drops) {
    plan.drops.choices += d.choices;
    plan.drops.partial_tokens += d.partial_tokens;
    plan.drops.total_tokens += d.total_tokens;
    plan.drops.weight += d.weight;
  }
  plan.reach = reach_of(plan, topology);
  return plan;
}

}  // namespace epsim
