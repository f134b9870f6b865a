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
  std::span<float> weight;
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

/// Where an expert's copies go from one source: at most `room` of them to each replica, the others to the next one that has room.
void spill(std::int64_t room, std::size_t replicas, std::span<std::uint16_t> dealt) {
  std::vector<std::int64_t> taken(replicas);
  for (std::uint16_t& choice : dealt) {
    while (choice < replicas && taken[choice] >= room) choice = static_cast<std::uint16_t>((choice + 1) % replicas);
    if (choice < replicas) ++taken[choice];
  }
}

/// What one home rank's copies are dealt by.
struct Dealing {
  const Placement& placement;
  const ReplicaRule& rule;
  const ReplicaRule::Deal& deal;
  std::span<const std::int64_t> kept;  ///< [E]
  std::span<const std::int64_t> room;  ///< [E] copies that a replica takes; empty: any number
};

/// Replaces the 0 of each kept choice by the slot its copy goes to, and counts copies by slot; gives what was lost. `kFewer`: some choices may not have been made.
template <bool kFewer>
DropCounts deal_copies(Rank source, const HomeBlock& block, const Dealing& by, std::span<std::int64_t> copies) {
  const std::span<const std::int64_t> kept = by.kept;
  const Placement& placement = by.placement;
  ReplicatedChoices replicated;
  if (by.rule.by_choice) replicated = ReplicatedChoices(block, kept, placement);
  // The slots that each expert's copies go to, expert by expert; one slot for all of an expert with one replica. One more is read, not used, behind the last.
  std::vector<Cursor> cursors(kept.size() + 1, Cursor{0, 0});
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
    if (by.rule.by_choice) of_expert.choice = std::span(replicated.choice).subspan(replicated.first[e], dealt.size());
    by.deal(of_expert, dealt);
    if (!by.room.empty()) spill(by.room[e], replicas.size(), dealt);
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
    int lost = 0, made = block.top_k;
    double weight = 0;  // of one token: what is added to the sum of all need not wait for every choice
    for (std::size_t j = i; j < i + k; ++j) {
      // All ones where the choice is dropped: a branch on it could not be foreseen.
      const std::int32_t dropped = block.slot[j];
      Cursor& at = cursors[kFewer ? std::min<std::size_t>(block.expert[j], kept.size()) : block.expert[j]];
      block.slot[j] = slots[at.next] | dropped;
      at.next += at.step & ~static_cast<std::uint32_t>(dropped);
      lost -= dropped;
      if (kFewer && block.expert[j] >= kept.size()) {  // not made, or of an expert that computes nothing
        --lost, --made;
        continue;
      }
      weight += static_cast<double>(std::bit_cast<float>(std::bit_cast<std::int32_t>(block.weight[j]) & dropped));
    }
    drops.weight += weight;
    drops.choices += lost;
    drops.partial_tokens += lost > 0 && lost < made;
    drops.total_tokens += lost > 0 && lost == made;
  }
  return drops;
}

/// Divides the weights that each token keeps by their sum: those of choices with a slot, and of experts that compute nothing.
void renormalise(const HomeBlock& block, int experts) {
  std::vector<std::int32_t> mark(block.slot.begin(), block.slot.end());
  for (std::size_t i = 0; i < mark.size(); ++i)
    if (block.expert[i] >= experts && block.expert[i] != kNoExpert) mark[i] = 0;
  renormalise_kept(block.top_k, mark, block.weight);
}

/// Takes the weight from copies that are dropped where they arrive (-1 in `mark`), and counts them by slot; gives what was lost.
DropCounts drop_on_arrival(const HomeBlock& block, std::span<const std::int32_t> mark, std::span<std::int64_t> arrived) {
  DropCounts drops;
  const auto k = static_cast<std::size_t>(block.top_k);
  for (std::size_t i = 0; i < block.expert.size(); i += k) {
    int lost = 0, made = 0;
    double weight = 0;
    for (std::size_t j = i; j < i + k; ++j) {
      made += block.slot[j] >= 0;
      if (block.slot[j] < 0 || mark[j] >= 0) continue;
      ++lost;
      ++arrived[static_cast<std::size_t>(block.slot[j])];
      weight += static_cast<double>(block.weight[j]);
      block.weight[j] = 0;
    }
    drops.weight += weight;
    drops.choices += lost;
    drops.partial_tokens += lost > 0 && lost < made;
    drops.total_tokens += lost > 0 && lost == made;
  }
  return drops;
}

/// Rows that each slot computes with nothing in them: up to its expert's capacity, and up to a whole block. Replicas share an expert's capacity; the first has what is missing.
std::vector<std::int64_t> padding_of(const Plan& plan, const Capacity& capacity, const Matrix<std::int64_t>& kept) {
  std::vector<std::int64_t> padding;
  if (!capacity.pad && capacity.row_block <= 1) return padding;
  padding.resize(static_cast<std::size_t>(plan.placement.slots()));
  if (capacity.pad)
    for (std::int64_t e = 0; e < kept.columns; ++e) {
      std::int64_t rows = 0;
      for (std::int64_t r = 0; r < kept.rows; ++r) {
        const bool counts = capacity.scope != Capacity::Scope::batch || r == 0;  // of a shared room the first rank sees all
        rows += (counts ? plan.limits(r, e) : 0) - kept(r, e);
      }
      const std::vector<Slot>& replicas = plan.placement.slots_of_expert[static_cast<std::size_t>(e)];
      if (!replicas.empty()) padding[static_cast<std::size_t>(replicas.front())] += std::max<std::int64_t>(rows, 0);
    }
  const std::vector<std::int64_t> rows = plan.rows_of_slot();
  for (std::size_t s = 0; s < padding.size(); ++s) {
    const std::int64_t all = rows[s] + padding[s];
    padding[s] += (all + capacity.row_block - 1) / capacity.row_block * capacity.row_block - all;
  }
  return padding;
}

/// Rows that home ranks send with nothing in them, to the rank of an expert's first replica: what is free of their share of its capacity. A rank without tokens sends none.
Matrix<std::int64_t> empty_rows_of(const Plan& plan, const Matrix<std::int64_t>& kept) {
  Matrix<std::int64_t> empty(plan.ranks(), plan.ranks());
  std::vector<Rank> rank_of_slot;
  for (const Rank r : ids<Rank>(plan.ranks())) rank_of_slot.resize(static_cast<std::size_t>(plan.placement.first_slot[r + 1]), r);
  for (const Rank home : ids<Rank>(plan.ranks()))
    for (std::int64_t e = 0; e < kept.columns && plan.routing.first_token[home] < plan.routing.first_token[home + 1]; ++e)
      if (const std::vector<Slot>& replicas = plan.placement.slots_of_expert[static_cast<std::size_t>(e)]; !replicas.empty())
        empty(home, rank_of_slot[replicas.front()]) += plan.limits(home, e) - kept(home, e);
  return empty;
}

Matrix<std::int64_t> within(Matrix<std::int64_t> choices, const Matrix<std::int64_t>& limits) {
  for (std::size_t i = 0; i < limits.cells.size(); ++i) choices.cells[i] = std::min(choices.cells[i], limits.cells[i]);
  return choices;
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

std::vector<std::int64_t> Plan::rows_of_slot() const {
  std::vector<std::int64_t> rows = copies_of_slot();
  for (std::int64_t r = 0; r < dropped_on_arrival.rows; ++r)
    for (std::size_t s = 0; s < rows.size(); ++s) rows[s] -= dropped_on_arrival.row(r)[s];
  for (std::size_t s = 0; s < padding.size(); ++s) rows[s] += padding[s];
  return rows;
}

std::vector<std::int64_t> Plan::copies_of_rank() const {
  std::vector<std::int64_t> of_slot = copies_of_slot();
  for (std::int64_t r = 0; r < dropped_on_arrival.rows; ++r)
    for (std::size_t s = 0; s < of_slot.size(); ++s) of_slot[s] -= dropped_on_arrival.row(r)[s];
  std::vector<std::int64_t> sum(static_cast<std::size_t>(placement.ranks()));
  for (std::size_t r = 0; r < sum.size(); ++r)
    for (std::int32_t s = placement.first_slot[r]; s < placement.first_slot[r + 1]; ++s) sum[r] += of_slot[static_cast<std::size_t>(s)];
  return sum;
}

std::vector<std::int64_t> Plan::shared_rows_of_rank() const {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(ranks()));
  for (std::size_t r = 0; r < rows.size() && shared_rank.empty(); ++r) rows[r] = routing.first_token[r + 1] - routing.first_token[r];
  for (const Rank r : shared_rank) ++rows[static_cast<std::size_t>(r)];
  return rows;
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
  add(empty_rows.cells);
  add(shared_rank);  // what came before has a length of its own, so nothing is what it might be taken for
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
  const bool drops_any = limited && capacity.overflow != Capacity::Overflow::none;
  const Matrix<std::int64_t> room = capacity.by_replica() ? plan.limits : Matrix<std::int64_t>();
  for (std::int64_t r = 0; r < room.rows; ++r)
    for (std::int64_t e = 0; e < room.columns; ++e) plan.limits(r, e) *= static_cast<std::int64_t>(plan.placement.slots_of_expert[static_cast<std::size_t>(e)].size());
  for (const std::int64_t limit : plan.limits.cells) ensure(limit >= 0, "a capacity is not negative");
  const Matrix<std::int64_t> kept = !drops_any                                       ? plan.choices
                                    : capacity.scope == Capacity::Scope::group ? kept_choices(capacity, plan.routing, plan.choices)
                                                                               : within(plan.choices, plan.limits);
  const Matrix<std::int64_t>& travelling = capacity.on_arrival ? plan.choices : kept;
  const ReplicaRule::Deal deal = replica.decide({layer, plan.routing.top_k, travelling, plan.placement, topology, plan.routing.seed, plan.routing.number});

  plan.slot.assign(plan.routing.expert.size(), 0);
  plan.copies = Matrix<std::int64_t>(ranks, plan.placement.slots());
  if (capacity.on_arrival && drops_any) plan.dropped_on_arrival = Matrix<std::int64_t>(ranks, plan.placement.slots());
  std::vector<DropCounts> drops(static_cast<std::size_t>(ranks));
  parallel_for(ranks, [&](std::int64_t r) {
    const HomeBlock block = block_of(plan, Rank(r));
    const bool overflows = !std::ranges::equal(kept.row(r), plan.choices.row(r));
    const CapacityDraw draw{plan.routing.seed, layer, plan.routing.number};
    std::vector<std::int32_t> fate;
    if (plan.routing.may_choose_fewer)
      for (std::size_t i = 0; i < block.expert.size(); ++i) block.slot[i] = -static_cast<std::int32_t>(block.expert[i] >= plan.routing.experts);
    if (overflows && capacity.on_arrival) {
      fate.assign(block.slot.begin(), block.slot.end());
      mark_overflow(capacity, plan.routing, Rank(r), plan.choices.row(r), plan.limits.row(r), draw, fate);
    } else if (overflows) {
      mark_overflow(capacity, plan.routing, Rank(r), plan.choices.row(r), plan.limits.row(r), draw, block.slot);
    }
    const Dealing by{plan.placement, replica, deal, travelling.row(r), room.rows > 0 ? room.row(r) : std::span<const std::int64_t>()};
    DropCounts& lost = drops[static_cast<std::size_t>(r)];
    lost = plan.routing.may_choose_fewer ? deal_copies<true>(Rank(r), block, by, plan.copies.row(r)) : deal_copies<false>(Rank(r), block, by, plan.copies.row(r));
    if (!fate.empty()) lost = drop_on_arrival(block, fate, plan.dropped_on_arrival.row(r));
    if (capacity.renormalise) renormalise(block, plan.routing.experts);
  });
  // Added rank by rank: the sum of weights has the same bits for any number of threads.
  for (const DropCounts& d : drops) {
    plan.drops.choices += d.choices;
    plan.drops.partial_tokens += d.partial_tokens;
    plan.drops.total_tokens += d.total_tokens;
    plan.drops.weight += d.weight;
  }
  plan.padding = padding_of(plan, capacity, kept);
  if (capacity.dense && limited) plan.empty_rows = empty_rows_of(plan, kept);
  plan.reach = reach_of(plan, topology);
  return plan;
}

}  // namespace epsim
