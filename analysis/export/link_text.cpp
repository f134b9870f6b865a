#include "analysis/export/link_text.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

#include "analysis/export/table.h"

namespace epsim {

std::string name_links(const std::vector<std::int32_t>& links, const Topology& topology, std::size_t most) {
  const std::size_t named = std::min(most, links.size());
  std::string text;
  for (std::size_t i = 0; i < named; ++i) text += (i == 0 ? "" : ", ") + topology.links()[static_cast<std::size_t>(links[i])].name;
  std::vector<std::pair<std::string, int>> more;  // tiers in the order of their first links
  for (std::size_t i = named; i < links.size(); ++i) {
    const std::string& tier = topology.links()[static_cast<std::size_t>(links[i])].tier;
    const auto found = std::find_if(more.begin(), more.end(), [&](const auto& m) { return m.first == tier; });
    if (found == more.end())
      more.emplace_back(tier, 1);
    else
      ++found->second;
  }
  for (std::size_t i = 0; i < more.size(); ++i) text += fmt::format("{}{} more of tier {}", i == 0 ? (named > 0 ? " and " : "") : ", ", more[i].second, more[i].first);
  return text;
}

std::string sparkline(std::span<const double> shares) {
  static constexpr std::array<const char*, 9> bars = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  std::string text;
  for (const double share : shares) text += bars[static_cast<std::size_t>(std::lround(8 * std::clamp(share, 0.0, 1.0)))];
  return text;
}

void write_tiers(std::ostream& out, const LinkUse& use, const Topology& topology) {
  TextTable table({true, true, false, false});
  table.add({"tier", "over time", "mean", "most"});
  for (const TierUse& t : tier_use(use, topology))
    table.add({t.tier, "|" + sparkline(t.mean) + "|", fmt::format("{:.1f} %", 100 * t.mean_in_all), fmt::format("{:.1f} %", 100 * *std::max_element(t.most.begin(), t.most.end()))});
  table.write(out);
}

}  // namespace epsim
