#include "policies/journey.h"

#include "base/check.h"
#include "policies/schedule.h"

namespace epsim {

std::string Journey::name(const std::string& stage, int round) const {
  if (rounds.size() == 1) return stage;
  const std::string& own = rounds[static_cast<std::size_t>(round)].name;
  return stage + " " + (own.empty() ? std::to_string(round + 1) : own);
}

Schedule carry(const Journey& journey, const Matrix<std::int64_t>& bytes) {
  ensure(bytes.rows == bytes.columns, "a matrix of bytes is square");
  const auto ranks = static_cast<int>(bytes.rows);
  std::vector<RowCounts> counts(journey.rounds.size(), RowCounts(ranks));
  std::vector<Journey::Hop> hops;
  for (const Rank s : ids<Rank>(ranks))
    for (const Rank d : ids<Rank>(ranks)) {
      if (s == d || bytes(s, d) == 0) continue;
      hops.clear();
      journey.hops(s, d, hops);
      for (const Journey::Hop& hop : hops) counts[static_cast<std::size_t>(hop.round)].add(hop.from, hop.to, bytes(s, d));
    }
  Schedule schedule{ranks, {}};
  for (std::size_t i = 0; i < journey.rounds.size(); ++i) {
    Phase phase;
    phase.name = journey.name("bytes", static_cast<int>(i));
    phase.after = journey.rounds[i].after, phase.after_sent = journey.rounds[i].after_sent;
    phase.rows = counts[i].table();
    phase.row_bytes = 1;
    phase.one_sided = journey.one_sided;
    schedule.phases.push_back(std::move(phase));
  }
  return schedule;
}

}  // namespace epsim
