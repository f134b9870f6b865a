#include "sim/moe/dispatch.h"

namespace epsim {

Dispatch dispatch(const Routed& routed) {
  Dispatch d;
  const std::size_t choices = routed.expert.size();
  const auto kept = [&](std::size_t c) { return routed.expert[c] >= 0 && routed.expert[c] < routed.experts && routed.kept[c]; };
  d.first.resize(static_cast<std::size_t>(routed.experts) + 1);
  for (std::size_t c = 0; c < choices; ++c)
    if (kept(c)) ++d.first[static_cast<std::size_t>(routed.expert[c]) + 1];
  for (std::size_t e = 0; e + 1 < d.first.size(); ++e) d.first[e + 1] += d.first[e];
  std::vector<std::int64_t> next(d.first.begin(), d.first.end() - 1);
  d.choice.resize(static_cast<std::size_t>(d.first.back()));
  d.row.assign(choices, -1);
  for (std::size_t c = 0; c < choices; ++c)
    if (kept(c)) {
      const std::int64_t row = next[static_cast<std::size_t>(routed.expert[c])]++;
      d.choice[static_cast<std::size_t>(row)] = static_cast<std::int64_t>(c);
      d.row[c] = row;
    }
  return d;
}

}  // namespace epsim
