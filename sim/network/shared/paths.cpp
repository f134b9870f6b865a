#include "sim/network/shared/paths.h"

namespace epsim {

Paths::Paths(const Topology& topology)
    : topology_(topology), ranks_(static_cast<std::size_t>(topology.ranks())), out_(ranks_, kMany), row_(ranks_, -1), row_of_vertex_(topology.vertices().size(), -1), first_(1) {
  if (topology.path_rule().kind == PathRule::Kind::ecmp) return;
  std::vector<bool> several(ranks_);
  const std::span<const Link> links = topology.links();
  for (std::size_t l = 0; l < links.size(); ++l) {
    const Rank r = topology.vertices()[static_cast<std::size_t>(links[l].from)].rank;
    if (!r.valid()) continue;
    if (out_[r] != kMany) several[static_cast<std::size_t>(r)] = true;
    out_[r] = static_cast<std::int32_t>(l);
  }
  for (std::size_t r = 0; r < ranks_; ++r)
    if (several[r]) out_[r] = kMany;
}

std::int32_t Paths::add_row(std::int32_t source) {
  std::int32_t& row = row_of_vertex_[static_cast<std::size_t>(topology_.links()[static_cast<std::size_t>(way_out(source))].to)];
  if (row < 0) {
    row = static_cast<std::int32_t>(tail_.size() / ranks_);
    tail_.resize(tail_.size() + ranks_, kUnknown);
  }
  return row_[static_cast<std::size_t>(source)] = row;
}

Paths::Tail Paths::add_tail(std::int32_t source, std::int32_t destination) {
  bool first = true;
  topology_.for_each_share(Rank(source), Rank(destination), [&](std::int32_t l, double share) {
    if (!first) hops_.push_back({l, share});
    first = false;
  });
  first_.push_back(hops_.size());
  return static_cast<Tail>(tails() - 1);
}

}  // namespace epsim
