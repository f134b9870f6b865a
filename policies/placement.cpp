#include "policies/placement.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace epsim {

Rank Placement::rank_of(Slot s) const {
  // Ranks without slots share their first slot with the next rank, so the rank is the last one that begins at or before the slot.
  const auto after = std::upper_bound(first_slot.begin(), first_slot.end(), s.value);
  return Rank(after - first_slot.begin() - 1);
}

Placement Placement::from_experts(std::vector<std::uint16_t> expert_of_slot, std::vector<std::int32_t> first_slot, int experts) {
  Placement p{std::move(expert_of_slot), std::move(first_slot), std::vector<std::vector<Slot>>(static_cast<std::size_t>(experts)), {}};
  for (const Slot s : ids<Slot>(p.slots())) {
    ensure(p.expert_of_slot[s] < experts, "a slot holds an expert of the model");
    p.slots_of_expert[p.expert_of_slot[s]].push_back(s);
  }
  return p;
}

void Placement::check(int experts) const {
  ensure(first_slot.size() >= 2 && first_slot.front() == 0 && first_slot.back() == slots(), "the ranks' blocks cover all slots");
  ensure(std::is_sorted(first_slot.begin(), first_slot.end()), "the ranks' blocks of slots are in order");
  ensure(slots_of_expert.size() == static_cast<std::size_t>(experts), "a placement lists the slots of each expert");
  std::size_t listed = 0;
  std::vector<bool> seen(expert_of_slot.size());
  for (const Expert e : ids<Expert>(experts)) {
    ensure(!slots_of_expert[e].empty(), "every expert has a slot");
    for (const Slot s : slots_of_expert[e]) {
      ensure(s >= 0 && s < slots() && expert_of_slot[s] == e && !seen[s], "both tables of a placement say the same");
      seen[s] = true;
      ++listed;
    }
  }
  ensure(listed == expert_of_slot.size(), "every slot holds an expert");
  if (share.empty()) return;
  ensure(share.size() == expert_of_slot.size(), "a placement has shares for all slots, or for none");
  for (const std::vector<Slot>& replicas : slots_of_expert) {
    double sum = 0;
    for (const Slot s : replicas) {
      ensure(share[s] >= 0, "a share is not negative");
      sum += share[s];
    }
    ensure(std::abs(sum - 1) < 1e-9, "the shares of an expert's slots sum to 1");
  }
}

std::vector<std::int64_t> Problem::loads(std::size_t layer) const {
  std::vector<std::int64_t> sum(static_cast<std::size_t>(experts));
  const Matrix<std::int64_t>& m = counts[layer];
  for (std::int64_t r = 0; r < m.rows; ++r)
    for (std::int64_t e = 0; e < m.columns; ++e) sum[static_cast<std::size_t>(e)] += m(r, e);
  return sum;
}

Matrix<std::int64_t> Problem::loads_by_batch(std::size_t layer) const {
  if (!batches.empty()) return batches[layer];
  Matrix<std::int64_t> one(1, experts);
  std::ranges::copy(loads(layer), one.cells.begin());
  return one;
}

double Problem::layer_seconds(std::size_t layer, const Placement& placement) const {
  double sum = 0;
  for (const std::shared_ptr<const Routing>& batch : tokens[layer]) sum += batch_seconds(layer, *batch, placement);
  return sum / static_cast<double>(tokens[layer].size());
}

}  // namespace epsim
