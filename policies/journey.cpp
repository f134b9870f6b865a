#include "policies/journey.h"

#include <algorithm>

#include "base/check.h"
#include "policies/schedule.h"

namespace epsim {

void Journey::find(Rank source, Rank destination, std::vector<Hop>& hops) const {
  hops.clear();
  for (Rank at = destination; at != source;) {
    const LastHop hop = last(source, at);
    hops.push_back({hop.round, hop.from, at});
    at = hop.from;
  }
  std::reverse(hops.begin(), hops.end());
}

void Journey::count(const Matrix<std::int64_t>& rows, std::span<RowCounts> of_rounds) const {
  const auto ranks = static_cast<std::size_t>(rows.rows);
  std::vector<LastHop> hops(ranks);
  std::vector<std::int64_t> carried;               // [R] rows that come to a rank, its own and those it forwards
  std::vector<std::size_t> first(rounds.size() + 1);
  std::vector<Rank> by_round(ranks);               // destinations, by the round of their last hop
  for (const Rank s : ids<Rank>(rows.rows)) {
    carried.assign(rows.row(s).begin(), rows.row(s).end());
    std::fill(first.begin(), first.end(), 0);
    for (const Rank d : ids<Rank>(rows.rows))
      if (d != s) hops[d] = last(s, d), ++first[static_cast<std::size_t>(hops[d].round) + 1];
    for (std::size_t r = 0; r < rounds.size(); ++r) first[r + 1] += first[r];
    for (const Rank d : ids<Rank>(rows.rows))
      if (d != s) by_round[first[static_cast<std::size_t>(hops[d].round)]++] = d;
    // From the last round back: what a rank forwards is known before its own hop is counted.
    for (std::size_t i = ranks - 1; i-- > 0;) {
      const Rank d = by_round[i];
      of_rounds[static_cast<std::size_t>(hops[d].round)].add(hops[d].from, d, carried[d]);
      if (hops[d].from != s) carried[hops[d].from] += carried[d];
    }
  }
}

std::string Journey::name(const std::string& stage, int round) const {
  if (rounds.size() == 1) return stage;
  const std::string& own = rounds[static_cast<std::size_t>(round)].name;
  return stage + " " + (own.empty() ? std::to_string(round + 1) : own);
}

Schedule carry(const Journey& journey, const Matrix<std::int64_t>& bytes) {
  ensure(bytes.rows == bytes.columns, "a matrix of bytes is square");
  const auto ranks = static_cast<int>(bytes.rows);
  std::vector<RowCounts> counts(journey.rounds.size(), RowCounts(ranks));
  journey.count(bytes, counts);
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
