#include "policies/plan.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <memory>

#include "base/check.h"
#include "base/parallel.h"

namespace epsim {
namespace {

/// The choices of one home rank, token by token.
struct HomeBlock {
  std::span<const std::uint16_t> expert;
  std::span<const float> weight;
  std::span<std::int32_t> slot;
  int top_k = 0;
};

HomeBlock block_of(Plan& plan, Rank r) {
  const auto k = static_cast<std::size_t>(plan.routing.top_k);
  const std::size_t begin = static_cast<std::size_t>(plan.routing.first_token[r]) * k;
  const std::size_t count = static_cast<std::size_t>(plan.routing.first_token[r + 1]) * k - begin;
  return {std::span(plan.routing.expert).subspan(begin, count), std::span(plan.routing.weight).subspan(begin, count),
          std::span(plan.slot).subspan(begin, count), plan.routing.top_k};
}

/// Sorts ascending where the weight falls and, for equal weights, where the choice comes first. Total even for NaN, so that no input can upset a sort.
std::uint64_t priority_key(float weight, std::uint32_t choice) {
  const auto bits = std::bit_cast<std::uint32_t>(weight + 0.0F);  // -0 becomes 0
  const std::uint32_t ascending = bits >> 31 ? ~bits : bits | 0x80000000U;
  return std::uint64_t{~ascending} << 32 | choice;
}

/// The n-th smallest (n from 0) of keys that differ. A comparison in a sort cannot be foreseen, so elements are swapped to their side without a branch.
std::uint64_t nth_smallest(std::span<std::uint64_t> keys, std::size_t n) {
  constexpr std::size_t kFew = 24;
  constexpr int kRounds = 64;  // unlucky pivots end here
  for (int round = 0; keys.size() > kFew && round < kRounds; ++round) {
    const std::uint64_t a = keys.front(), b = keys[keys.size() / 2], c = keys.back();
    const std::uint64_t pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));  // their median: neither the smallest nor the largest
    std::size_t below = 0;
    for (std::uint64_t& key : keys) {
      const std::uint64_t moved = key;
      key = keys[below];
      keys[below] = moved;
      below += moved < pivot;
    }
    if (n < below) {
      keys = keys.first(below);
    } else {
      keys = keys.subspan(below);
      n -= below;
    }
  }
  const auto nth = keys.begin() + static_cast<std::ptrdiff_t>(n);
  std::nth_element(keys.begin(), nth, keys.end());
  return *nth;
}

/// For each expert the priority key below which a choice is kept; experts that keep all have the highest key there is.
std::vector<std::uint64_t> kept_below(const HomeBlock& block, std::span<const std::int64_t> choices, std::span<const std::int64_t> limits) {
  std::vector<std::uint64_t> below(choices.size(), ~std::uint64_t{0});
  std::vector<std::size_t> first(choices.size() + 1);
  for (std::size_t e = 0; e < choices.size(); ++e) first[e + 1] = first[e] + (choices[e] > limits[e] ? static_cast<std::size_t>(choices[e]) : 0);
  // An expert that keeps all writes its keys, without a branch, over each other and behind the others'.
  struct Cursor {
    std::size_t next, step;
  };
  std::vector<Cursor> cursors(choices.size());
  for (std::size_t e = 0; e < choices.size(); ++e) cursors[e] = choices[e] > limits[e] ? Cursor{first[e], 1} : Cursor{first.back(), 0};
  std::vector<std::uint64_t> keys(first.back() + 1);
  for (std::size_t i = 0; i < block.expert.size(); ++i) {
    Cursor& at = cursors[block.expert[i]];
    keys[at.next] = priority_key(block.weight[i], static_cast<std::uint32_t>(i));
    at.next += at.step;
  }
  for (std::size_t e = 0; e < choices.size(); ++e)
    if (choices[e] > limits[e]) below[e] = limits[e] == 0 ? 0 : nth_smallest(std::span(keys).subspan(first[e], first[e + 1] - first[e]), static_cast<std::size_t>(limits[e]));
  return below;
}

/// Writes -1 to the slots of the choices that do not fit and 0 to the others; gives what was lost.
DropCounts drop_overflow(const HomeBlock& block, Capacity::Order order, std::span<const std::int64_t> choices, std::span<const std::int64_t> limits) {
  DropCounts drops;
  const bool by_weight = order == Capacity::Order::probability;
  const std::vector<std::uint64_t> below = by_weight ? kept_below(block, choices, limits) : std::vector<std::uint64_t>{};
  std::vector<std::int64_t> taken(choices.size());
  const auto k = static_cast<std::size_t>(block.top_k);
  const auto drop = [&](auto&& fits) {
    for (std::size_t i = 0; i < block.expert.size(); i += k) {
      int lost = 0;
      double weight = 0;  // of one token: what is added to the sum of all need not wait for every choice
      for (std::size_t j = i; j < i + k; ++j) {
        const bool keep = fits(j);
        block.slot[j] = keep ? 0 : -1;
        lost += !keep;
        weight += keep ? 0.0 : static_cast<double>(block.weight[j]);
      }
      drops.weight += weight;
      drops.choices += lost;
      drops.partial_tokens += lost > 0 && lost < block.top_k;
      drops.total_tokens += lost == block.top_k;
    }
  };
  if (by_weight)
    drop([&](std::size_t j) { return priority_key(block.weight[j], static_cast<std::uint32_t>(j)) < below[block.expert[j]]; });
  else
    drop([&](std::size_t j) { return taken[block.expert[j]]++ < limits[block.expert[j]]; });
  return drops;
}

/// Replaces the 0 of each kept choice by the slot its copy goes to and counts copies by slot.
void deal_copies(Rank source, const HomeBlock& block, std::span<const std::int64_t> kept, const Placement& placement, const ReplicaRule::Deal& deal,
                 std::span<std::int64_t> copies) {
  // The slots that each expert's copies go to, expert by expert; one slot for all of an expert with one replica. One more is read, not used, behind the last.
  struct Cursor {
    std::size_t next;
    std::uint32_t step;
  };
  std::vector<Cursor> cursors(kept.size());
  std::vector<std::int32_t> slots;
  std::vector<std::uint16_t> dealt;
  bool legal = true;
  for (std::size_t e = 0; e < kept.size(); ++e) {
    const std::vector<Slot>& replicas = placement.slots_of_expert[e];
    cursors[e] = {slots.size(), replicas.size() > 1 ? 1U : 0U};
    if (replicas.size() == 1) slots.push_back(replicas.front());
    if (replicas.size() <= 1 || kept[e] == 0) continue;
    dealt.assign(static_cast<std::size_t>(kept[e]), 0);
    deal(source, Expert(static_cast<std::int64_t>(e)), replicas, dealt);
    for (const std::uint16_t choice : dealt) {
      legal &= choice < replicas.size();
      slots.push_back(replicas[std::min<std::size_t>(choice, replicas.size() - 1)]);
    }
  }
  slots.push_back(0);
  for (std::size_t i = 0; i < block.expert.size(); ++i) {
    const bool keep = block.slot[i] >= 0;
    Cursor& at = cursors[block.expert[i]];
    const std::int32_t s = slots[at.next];
    at.next += keep ? at.step : 0U;
    block.slot[i] = keep ? s : -1;
    copies[static_cast<std::size_t>(s)] += keep;
  }
  ensure(legal, "a replica rule deals to replicas that there are");
}

void check_sizes(const Plan& plan) {
  const Routing& routing = plan.routing;
  const auto total = static_cast<std::size_t>(routing.tokens()) * static_cast<std::size_t>(routing.top_k);
  ensure(routing.top_k > 0 && routing.expert.size() == total && routing.weight.size() == total, "a routing has k choices and weights for each token");
  ensure(plan.placement.ranks() == routing.ranks(), "routing and placement are for the same ranks");
  plan.placement.check(routing.experts);
  for (const std::vector<Slot>& replicas : plan.placement.slots_of_expert) ensure(replicas.size() <= 65'536, "an expert has at most 65,536 replicas");
  for (int r = 0; r < routing.ranks(); ++r)
    ensure((routing.first_token[r + 1] - routing.first_token[r]) * routing.top_k <= std::int64_t{1} << 32, "a rank makes at most 2^32 choices");
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
  Plan plan;
  plan.layer = layer;
  plan.routing = std::move(routing);
  plan.placement = std::move(placement);
  check_sizes(plan);
  const int ranks = plan.ranks();
  plan.choices = count_choices(plan.routing);
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
  const ReplicaRule::Deal deal = replica.decide(kept, plan.placement, topology);

  plan.slot.assign(plan.routing.expert.size(), 0);
  plan.copies = Matrix<std::int64_t>(ranks, plan.placement.slots());
  std::vector<DropCounts> drops(static_cast<std::size_t>(ranks));
  parallel_for(ranks, [&](std::int64_t r) {
    const HomeBlock block = block_of(plan, Rank(r));
    if (overflows[static_cast<std::size_t>(r)])
      drops[static_cast<std::size_t>(r)] = drop_overflow(block, capacity.order, plan.choices.row(r), plan.limits.row(r));
    deal_copies(Rank(r), block, kept.row(r), plan.placement, deal, plan.copies.row(r));
  });
  // Added rank by rank: the sum of weights has the same bits for any number of threads.
  for (const DropCounts& d : drops) {
    plan.drops.choices += d.choices;
    plan.drops.partial_tokens += d.partial_tokens;
    plan.drops.total_tokens += d.total_tokens;
    plan.drops.weight += d.weight;
  }
  return plan;
}

}  // namespace epsim
