#include "topology/next_hops.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>

#include "base/parallel.h"
#include "topology/graph.h"
#include "topology/topology.h"

namespace epsim {
namespace {

constexpr std::int32_t kUnreached = std::numeric_limits<std::int32_t>::max();
constexpr std::size_t kMaxCells = std::size_t{1} << 28;  // of four bytes

/// Counts to offsets, for lists that lie one behind the other: [n] with a last 0 to [n + 1].
void to_offsets(std::vector<std::size_t>& counts) {
  std::size_t sum = 0;
  for (std::size_t& c : counts) c = std::exchange(sum, sum + c);
}

std::span<const std::int32_t> ascending(std::vector<std::int32_t>& links) {
  std::sort(links.begin(), links.end());
  links.erase(std::unique(links.begin(), links.end()), links.end());
  return links;
}

}  // namespace

NextHops::NextHops(std::span<const Vertex> vertices, std::span<const Link> links, std::span<const std::int32_t> vertex_of_rank, const Location& at) {
  const SwitchGraph graph(vertices, links);
  const std::size_t ranks = vertex_of_rank.size();
  for (std::size_t v = 0; v < vertices.size(); ++v)
    switch_of_vertex_.push_back(vertices[v].rank.valid() ? ~vertices[v].rank.value : graph.switch_of(static_cast<std::int32_t>(v)));

  std::vector<std::int32_t> attachment(static_cast<std::size_t>(graph.switches()), -1), attached;
  first_in_.assign(ranks + 1, 0), first_out_ = first_direct_ = first_in_;
  for (const Link& link : links) {
    const std::int32_t from = switch_of_vertex_[static_cast<std::size_t>(link.from)], to = switch_of_vertex_[static_cast<std::size_t>(link.to)];
    if (from < 0) ++(to < 0 ? first_direct_[static_cast<std::size_t>(~to)] : first_out_[static_cast<std::size_t>(~from)]);
    if (from < 0 || to >= 0) continue;
    ++first_in_[static_cast<std::size_t>(~to)];
    if (std::int32_t& number = attachment[static_cast<std::size_t>(from)]; number < 0)
      number = static_cast<std::int32_t>(attached.size()), attached.push_back(from);
  }
  to_offsets(first_in_), to_offsets(first_out_), to_offsets(first_direct_);
  in_.resize(first_in_.back()), out_.resize(first_out_.back()), direct_.resize(first_direct_.back());
  std::vector<std::size_t> next_in = first_in_, next_out = first_out_, next_direct = first_direct_;
  for (std::size_t l = 0; l < links.size(); ++l) {
    const auto index = static_cast<std::int32_t>(l);
    const std::int32_t from = switch_of_vertex_[static_cast<std::size_t>(links[l].from)], to = switch_of_vertex_[static_cast<std::size_t>(links[l].to)];
    if (from < 0 && to < 0) direct_[next_direct[static_cast<std::size_t>(~to)]++] = {~from, index, links[l].cost};
    if (from < 0 && to >= 0) out_[next_out[static_cast<std::size_t>(~from)]++] = {index, to, links[l].cost};
    if (from >= 0 && to < 0) in_[next_in[static_cast<std::size_t>(~to)]++] = {index, attachment[static_cast<std::size_t>(from)], links[l].cost};
  }
  for (std::size_t r = 0; r < ranks; ++r)
    std::stable_sort(direct_.begin() + static_cast<std::ptrdiff_t>(first_direct_[r]), direct_.begin() + static_cast<std::ptrdiff_t>(first_direct_[r + 1]),
                     [](const Direct& a, const Direct& b) { return a.from < b.from; });

  attached_ = attached.size();
  const auto switches = static_cast<std::size_t>(graph.switches());
  if (switches * attached_ > kMaxCells) throw InputError(at, "the cluster is too large: its next-hop tables would pass 1 GiB");
  cost_.assign(switches * attached_, kNone);
  parallel_for(static_cast<std::int64_t>(attached_), [&](std::int64_t a) {
    std::vector<std::int32_t> costs(switches);
    graph.costs_to(attached[static_cast<std::size_t>(a)], costs);
    for (std::size_t s = 0; s < switches; ++s) {
      if (costs[s] >= kNone) throw InputError(at, "the cluster is too large: the links of a path cost more than 65534");
      if (costs[s] >= 0) cost_[s * attached_ + static_cast<std::size_t>(a)] = static_cast<std::uint16_t>(costs[s]);
    }
  });
  check_all_pairs(at);
  collect_sets(links);
}

std::span<const NextHops::Port> NextHops::ports_in(std::int32_t rank) const {
  const auto r = static_cast<std::size_t>(rank);
  return {in_.data() + first_in_[r], in_.data() + first_in_[r + 1]};
}

std::span<const NextHops::Port> NextHops::ports_out(std::int32_t rank) const {
  const auto r = static_cast<std::size_t>(rank);
  return {out_.data() + first_out_[r], out_.data() + first_out_[r + 1]};
}

std::span<const NextHops::Direct> NextHops::direct(std::int32_t from, std::int32_t to) const {
  const auto r = static_cast<std::size_t>(to);
  const Direct *const begin = direct_.data() + first_direct_[r], *const end = direct_.data() + first_direct_[r + 1];
  const Direct* const first = std::lower_bound(begin, end, from, [](const Direct& d, std::int32_t f) { return d.from < f; });
  return {first, std::find_if(first, end, [&](const Direct& d) { return d.from != from; })};
}

std::int32_t NextHops::cost_from_switch(std::int32_t s, std::int32_t rank) const {
  std::int32_t best = kUnreached;
  for (const Port& p : ports_in(rank))
    if (const std::uint16_t c = cost_[cell_of(s, p.end)]; c != kNone) best = std::min(best, c + p.cost);
  return best;
}

std::span<const std::int32_t> NextHops::from_switch(std::int32_t s, Rank d, std::vector<std::int32_t>& scratch) const {
  const std::int32_t best = cost_from_switch(s, d);
  std::span<const std::int32_t> found;
  bool one = true;
  for (const Port& p : ports_in(d)) {
    const std::size_t cell = cell_of(s, p.end);
    if (cost_[cell] == kNone || cost_[cell] + p.cost != best) continue;
    const std::span<const std::int32_t> links = cost_[cell] == 0 ? std::span(&p.link, 1) : set(s, cell);
    if (found.empty()) {
      found = links;
      continue;
    }
    // Several ways into the rank are equally near.
    if (one) scratch.assign(found.begin(), found.end());
    one = false;
    scratch.insert(scratch.end(), links.begin(), links.end());
  }
  return one ? found : ascending(scratch);
}

std::span<const std::int32_t> NextHops::from_rank(std::int32_t rank, Rank d, std::vector<std::int32_t>& scratch) const {
  std::int32_t best = kUnreached;
  const std::int32_t* only = nullptr;
  bool one = true;
  const auto offer = [&](const std::int32_t& link, std::int32_t cost) {
    if (cost > best) return;
    if (cost < best) {
      best = cost, only = &link, one = true;
      return;
    }
    if (one) scratch.assign(1, *only);
    one = false;
    scratch.push_back(link);
  };
  for (const Direct& x : direct(rank, d)) offer(x.link, x.cost);
  for (const Port& p : ports_out(rank))
    if (const std::int32_t rest = cost_from_switch(p.end, d); rest != kUnreached) offer(p.link, p.cost + rest);
  return one ? std::span(only, 1) : ascending(scratch);
}

void NextHops::check_all_pairs(const Location& at) const {
  // A bit a rank: those that reach each attached switch, and of them those that reach each rank.
  const std::size_t ranks = first_in_.size() - 1, words = (ranks + 63) / 64;
  std::vector<std::vector<std::uint64_t>> reaching(attached_, std::vector<std::uint64_t>(words));
  for (std::size_t r = 0; r < ranks; ++r)
    for (const Port& p : ports_out(static_cast<std::int32_t>(r)))
      for (std::size_t a = 0; a < attached_; ++a)
        if (cost_[cell_of(p.end, static_cast<std::int32_t>(a))] != kNone) reaching[a][r / 64] |= std::uint64_t{1} << (r % 64);
  Diagnostics problems;
  std::vector<std::uint64_t> all(words);
  for (std::size_t d = 0; d < ranks && problems.size() < 10; ++d) {
    std::fill(all.begin(), all.end(), 0);
    const auto add = [&](std::size_t r) { all[r / 64] |= std::uint64_t{1} << (r % 64); };
    add(d);
    for (std::size_t i = first_direct_[d]; i < first_direct_[d + 1]; ++i) add(static_cast<std::size_t>(direct_[i].from));
    for (const Port& p : ports_in(static_cast<std::int32_t>(d)))
      for (std::size_t w = 0; w < words; ++w) all[w] |= reaching[static_cast<std::size_t>(p.end)][w];
    for (std::size_t s = 0; s < ranks; ++s)
      if (s % 64 == 0 && all[s / 64] == ~std::uint64_t{0}) {
        s += 63;
      } else if (!(all[s / 64] >> (s % 64) & 1)) {
        problems.add(at, fmt::format("there is no path from rank {} to rank {}", s, d));
        break;
      }
  }
  problems.check();
}

void NextHops::collect_sets(std::span<const Link> links) {
  const std::size_t switches = attached_ == 0 ? 0 : cost_.size() / attached_;
  std::vector<std::size_t> first_out(switches + 1);
  const auto between = [&](const Link& link) {
    return switch_of_vertex_[static_cast<std::size_t>(link.from)] >= 0 && switch_of_vertex_[static_cast<std::size_t>(link.to)] >= 0;
  };
  for (const Link& link : links)
    if (between(link)) ++first_out[static_cast<std::size_t>(switch_of_vertex_[static_cast<std::size_t>(link.from)])];
  to_offsets(first_out);
  std::vector<Port> out(first_out.back());
  std::vector<std::size_t> next = first_out;
  for (std::size_t l = 0; l < links.size(); ++l)
    if (between(links[l]))
      out[next[static_cast<std::size_t>(switch_of_vertex_[static_cast<std::size_t>(links[l].from)])]++] = {
          static_cast<std::int32_t>(l), switch_of_vertex_[static_cast<std::size_t>(links[l].to)], links[l].cost};

  set_.assign(cost_.size(), 0);
  std::vector<std::vector<std::vector<std::int32_t>>> sets(switches);
  parallel_for(static_cast<std::int64_t>(switches), [&](std::int64_t i) {
    const auto s = static_cast<std::size_t>(i);
    std::map<std::vector<std::int32_t>, std::uint16_t> known;
    std::vector<std::int32_t> now;
    const std::vector<std::int32_t>* last = nullptr;
    std::uint16_t last_number = 0;
    for (std::size_t a = 0; a < attached_; ++a) {
      const std::uint16_t cost = cost_[s * attached_ + a];
      if (cost == 0 || cost == kNone) continue;
      now.clear();
      for (std::size_t o = first_out[s]; o < first_out[s + 1]; ++o)
        if (cost_[static_cast<std::size_t>(out[o].end) * attached_ + a] + out[o].cost == cost) now.push_back(out[o].link);
      if (!last || now != *last) {
        const auto found = known.try_emplace(now, static_cast<std::uint16_t>(known.size()));
        if (found.second) sets[s].push_back(now);
        last = &found.first->first;
        last_number = found.first->second;
      }
      set_[s * attached_ + a] = last_number;
    }
  });
  first_member_.push_back(0);
  for (const auto& of_switch : sets) {
    first_set_.push_back(first_member_.size() - 1);
    for (const std::vector<std::int32_t>& set : of_switch) {
      members_.insert(members_.end(), set.begin(), set.end());
      first_member_.push_back(members_.size());
    }
  }
}

std::size_t NextHops::bytes() const {
  const auto size = [](const auto& v) { return v.size() * sizeof(v[0]); };
  return size(switch_of_vertex_) + size(first_in_) + size(first_out_) + size(in_) + size(out_) + size(first_direct_) + size(direct_) + size(cost_) + size(set_) + size(first_set_) +
         size(first_member_) + size(members_);
}

}  // namespace epsim
