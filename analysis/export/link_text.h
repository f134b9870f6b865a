#pragma once
#include <iosfwd>
#include <span>
#include <string>
#include <vector>

#include "analysis/link_use.h"

namespace epsim {

/// Names of links for people: the first `most`, then how many more there are of each tier, as in "rank 0 -> switch, rank 1 -> switch and 14 more of tier nvlink".
std::string name_links(const std::vector<std::int32_t>& links, const Topology& topology, std::size_t most = 3);

/// Shares from 0 to 1 as bars of eight heights, one character each; a blank is less than 1/16.
std::string sparkline(std::span<const double> shares);

/// A table of the tiers: utilisation over time (mean over the tier's links) as a sparkline, its mean and the most that a link has in a bin.
void write_tiers(std::ostream& out, const LinkUse& use, const Topology& topology);

}  // namespace epsim
