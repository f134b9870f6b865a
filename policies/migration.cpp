#include "policies/migration.h"

#include <algorithm>
#include <set>

#include "base/check.h"

namespace epsim {
namespace {

/// The experts on a rank, ascending, each once.
std::vector<std::uint16_t> experts_on(const Placement& p, Rank r) {
  std::vector<std::uint16_t> held(p.expert_of_slot.begin() + p.first_slot[r], p.expert_of_slot.begin() + p.first_slot[r + 1]);
  std::ranges::sort(held);
  held.erase(std::unique(held.begin(), held.end()), held.end());
  return held;
}

std::int64_t changed_slots(const Placement& before, const Placement& after, Rank r) {
  const std::int32_t had = before.first_slot[r + 1] - before.first_slot[r], has = after.first_slot[r + 1] - after.first_slot[r];
  std::int64_t changed = std::max(0, has - had);
  for (std::int32_t i = 0; i < std::min(had, has); ++i)
    changed += before.expert_of_slot[static_cast<std::size_t>(before.first_slot[r] + i)] != after.expert_of_slot[static_cast<std::size_t>(after.first_slot[r] + i)];
  return changed;
}

}  // namespace

Migration migration(const Placement& before, const Placement& after, const Topology& topology) {
  const int ranks = after.ranks();
  ensure(before.ranks() == ranks && topology.ranks() == ranks, "weights move between placements on the same ranks");
  Migration m;
  std::vector<std::int64_t> sends(static_cast<std::size_t>(ranks));
  std::set<std::pair<std::int32_t, std::int32_t>> pairs;
  for (const Rank r : ids<Rank>(ranks)) {
    m.changed_slots += changed_slots(before, after, r);
    std::vector<std::uint16_t> lacking;
    std::ranges::set_difference(experts_on(after, r), experts_on(before, r), std::back_inserter(lacking));
    for (const std::uint16_t expert : lacking) {
      const Expert e(expert);
      if (before.slots_of_expert[e].empty()) {
        m.restores.push_back({r, e});
        continue;
      }
      Rank from;
      bool near = false;
      for (const Slot s : before.slots_of_expert[e]) {
        const Rank holder = before.rank_of(s);
        const bool in_node = topology.node_of(holder) == topology.node_of(r);
        const auto better = [&] { return sends[holder] != sends[from] ? sends[holder] < sends[from] : holder < from; };
        if (from < 0 || (in_node && !near) || (in_node == near && better())) from = holder, near = in_node;
      }
      ++sends[from];
      pairs.emplace(from, r);
      m.moves.push_back({from, r, e});
    }
  }
  m.peers = static_cast<std::int64_t>(pairs.size());
  return m;
}

Schedule migration_schedule(const Migration& migration, int ranks, Bytes expert_bytes) {
  Phase weights;
  weights.name = "migrate weights";
  std::vector<RowTable::Entry> entries;
  for (const Move& move : migration.moves) entries.push_back({move.from, move.to, 1});
  weights.rows = RowTable(ranks, std::move(entries));
  weights.row_bytes = expert_bytes;
  return {ranks, {std::move(weights)}};
}

}  // namespace epsim
