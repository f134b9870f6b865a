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

/// For each expert the last priority key that is kept; experts that keep all have the highest key there is.
std::vector<std::uint64_t> last_kept(const HomeBlock& block, std::span<const std::int64_t> choices, std::span<const std::int64_t> limits) {
  std::vector<std::uint64_t> last(choices.size(), ~std::uint64_t{0});
  std::vector<std::size_t> first(choices.size() + 1);
  for (std::size_t e = 0; e < choices.size(); ++e) first[e + 1] = first[e] + (choices[e] > limits[e] ? static_cast<std::size_t>(choices[e]) : 0);
  std::vector<std::uint64_t> keys(first.back());
  std::vector<std::size_t> next(first.begin(), first.end() - 1);
  for (std::size_t i = 0; i < block.expert.size(); ++i)
    if (const std::size_t e = block.expert[i]; choices[e] > limits[e]) keys[next[e]++] = priority_key(block.weight[i], static_cast<std::uint32_t>(i));
  for (std::size_t e = 0; e < choices.size(); ++e) {
    if (choices[e] <= limits[e] || limits[e] == 0) continue;
    const auto begin = keys.begin() + static_cast<std::ptrdiff_t>(first[e]);
    const auto nth = begin + static_cast<std::ptrdiff_t>(limits[e] - 1);
    std::nth_element(begin, nth, keys.begin() + static_cast<std::ptrdiff_t>(first[e + 1]));
    last[e] = *nth;
  }
  return last;
}

/// Writes -1 to the slots of the choices that do not fit and 0 to the others; gives what was lost.
DropCounts drop_overflow(const HomeBlock& block, Capacity::Order order, std::span<const std::int64_t> choices, std::span<const std::int64_t> limits) {
  DropCounts drops;
  const bool by_weight = order == Capacity::Order::probability;
  const std::vector<std::uint64_t> last = by_weight ? last_kept(block, choices, limits) : std::vector<std::uint64_t>{};
  std::vector<std::int64_t> taken(choices.size());
  const auto k = static_cast<std::size_t>(block.top_k);
  for (std::size_t i = 0; i < block.expert.size(); i += k) {
    int lost = 0;
    for (std::size_t j = i; j < i + k; ++j) {
      const std::size_t e = block.expert[j];
      const bool fits = by_weight ? limits[e] > 0 && priority_key(block.weight[j], static_cast<std::uint32_t>(j)) <= last[e] : taken[e]++ < limits[e];
      block.slot[j] = fits ? 0 : -1;
      if (fits) continue;
      ++lost;
      drops.weight += static_cast<double>(block.weight[j]);
    }
    drops.choices += lost;
    drops.partial_tokens += lost > 0 && lost < block.top_k;
    drops.total_tokens += lost == block.top_k;
  }
  return drops;
}

/// Replaces the 0 of each kept choice by the slot its copy goes to and counts copies by slot.
void deal_copies(Rank source, const HomeBlock& block, std::span<const std::int64_t> kept, const Placement& placement, const ReplicaRule::Deal& deal,
                 std::span<std::int64_t> copies) {
  std::vector<std::size_t> next(kept.size() + 1);  // of each expert, into `dealt`; experts with one replica need no dealing
  for (std::size_t e = 0; e < kept.size(); ++e) next[e + 1] = next[e] + (placement.slots_of_expert[e].size() > 1 ? static_cast<std::size_t>(kept[e]) : 0);
  std::vector<std::uint16_t> dealt(next.back());
  for (std::size_t e = 0; e < kept.size(); ++e)
    if (next[e + 1] > next[e])
      deal(source, Expert(static_cast<std::int64_t>(e)), placement.slots_of_expert[e], std::span(dealt).subspan(next[e], next[e + 1] - next[e]));

  std::vector<std::int32_t> only(kept.size());  // the slot of an expert with one replica, else -1
  for (std::size_t e = 0; e < kept.size(); ++e) only[e] = placement.slots_of_expert[e].size() == 1 ? placement.slots_of_expert[e].front().value : -1;
  bool legal = true;
  for (std::size_t i = 0; i < block.expert.size(); ++i) {
    if (block.slot[i] < 0) continue;
    const std::size_t e = block.expert[i];
    std::int32_t s = only[e];
    if (s < 0) {
      const std::vector<Slot>& replicas = placement.slots_of_expert[e];
      const std::uint16_t choice = dealt[next[e]++];
      legal &= choice < replicas.size();
      s = replicas[std::min<std::size_t>(choice, replicas.size() - 1)];
    }
    block.slot[i] = s;
    ++copies[static_cast<std::size_t>(s)];
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
