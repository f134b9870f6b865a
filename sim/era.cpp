#include "sim/era.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "base/check.h"
#include "topology/faults.h"

namespace epsim {
namespace {

std::string ranks_in_words(const std::vector<int>& ranks) { return fmt::format("{} {}", ranks.size() == 1 ? "rank" : "ranks", fmt::join(ranks, ", ")); }

std::string in_words(const Event& e) {
  std::string text;
  const auto add = [&text](std::string more) { text += (text.empty() ? "" : "; ") + more; };
  if (!e.fail.empty()) add(fmt::format("{} {}", ranks_in_words(e.fail), e.fail.size() == 1 ? "fails" : "fail"));
  if (!e.join.empty()) add(fmt::format("{} {}", ranks_in_words(e.join), e.join.size() == 1 ? "joins" : "join"));
  if (!e.slow.empty()) {
    std::vector<int> ranks;
    for (const auto& [rank, speed] : e.slow) ranks.push_back(rank);
    add(fmt::format("{} at speed {}", ranks_in_words(ranks), e.slow.front().second));
  }
  return text;
}

std::shared_ptr<Survivors> survivors_of(const std::vector<bool>& is_up, const Topology& topology) {
  const auto s = std::make_shared<Survivors>();
  s->ranks = topology.ranks(), s->nodes = topology.nodes();
  std::vector<Rank> down;
  for (const Rank r : ids<Rank>(topology.ranks())) {
    if (!is_up[r]) {
      down.push_back(r);
      continue;
    }
    s->up.push_back(r);
    if (s->node.empty() || std::ranges::find(s->node, topology.node_of(r)) == s->node.end()) s->node.push_back(topology.node_of(r));
  }
  std::ranges::sort(s->node);
  s->topology = without_ranks(topology, down);
  s->placing = s->topology;
  return s;
}

/// Rows of a matrix by rank, spread over the whole machine's ranks.
template <class T>
Matrix<T> spread_rows(const Matrix<T>& m, const Survivors& s) {
  if (m.rows == 0) return m;
  Matrix<T> out(s.ranks, m.columns);
  for (std::size_t i = 0; i < s.up.size(); ++i) std::ranges::copy(m.row(static_cast<std::int64_t>(i)), out.row(s.up[i]).begin());
  return out;
}

/// The first slots of the whole machine's ranks.
std::vector<std::int32_t> spread_first(const std::vector<std::int32_t>& first, const Survivors& s) {
  std::vector<std::int32_t> out{0};
  std::size_t next = 0;
  for (const Rank r : ids<Rank>(s.ranks)) {
    const bool up = next < s.up.size() && s.up[next] == r;
    out.push_back(out.back() + (up ? first[next + 1] - first[next] : 0));
    next += up;
  }
  return out;
}

}  // namespace

std::vector<Era> eras_of(const Changes& changes, const Topology& topology, const BatchRange& eval, Diagnostics& problems) {
  const auto ranks = static_cast<std::size_t>(topology.ranks());
  std::vector<Era> eras{{eval.first, {}, nullptr, false, ""}};
  for (std::size_t r = 0; r < ranks && !changes.speeds.empty(); ++r) eras.front().speeds.push_back(changes.speeds[r % changes.speeds.size()]);
  std::vector<bool> is_up(ranks, true);
  for (const Event& e : changes.events) {
    const std::size_t before = problems.size();
    const auto unknown = [&](int rank) {
      const bool bad = rank >= topology.ranks();
      if (bad) problems.add(e.at, fmt::format("there is no rank {}: there are {}, from 0", rank, ranks));
      return bad;
    };
    if (e.batch < eval.first || e.batch >= eval.last) problems.add(e.at, fmt::format("batch {} is not played: batches {} to {} are", e.batch, eval.first, eval.last - 1));
    std::vector<bool> up = is_up;
    for (const int r : e.fail) {
      if (unknown(r)) continue;
      if (!up[static_cast<std::size_t>(r)]) problems.add(e.at, fmt::format("rank {} fails in batch {} and is down already", r, e.batch));
      up[static_cast<std::size_t>(r)] = false;
    }
    for (const int r : e.join) {
      if (unknown(r)) continue;
      if (up[static_cast<std::size_t>(r)]) problems.add(e.at, fmt::format("rank {} joins in batch {} and is up already", r, e.batch));
      up[static_cast<std::size_t>(r)] = true;
    }
    std::vector<double> speeds = eras.back().speeds;
    if (speeds.empty() && !e.slow.empty()) speeds.assign(ranks, 1);
    for (const auto& [rank, speed] : e.slow)
      if (!unknown(rank)) speeds[static_cast<std::size_t>(rank)] = speed;
    if (std::ranges::find(up, true) == up.end()) problems.add(e.at, fmt::format("no rank is left in batch {}", e.batch));
    if (problems.size() > before) continue;

    if (eras.back().batch < e.batch) eras.push_back({e.batch, {}, eras.back().survivors, false, ""});
    Era& era = eras.back();
    era.speeds = std::move(speeds);
    era.what += (era.what.empty() ? "" : "; ") + in_words(e);
    if (up == is_up) continue;
    is_up = std::move(up);
    era.other_ranks = true;
    era.survivors = std::ranges::find(is_up, false) == is_up.end() ? nullptr : survivors_of(is_up, topology);
  }
  return eras;
}

ComputeModel at_speeds(ComputeModel model, std::vector<double> speeds) {
  if (speeds.empty()) return model;
  auto kernel_seconds = std::move(model.kernel_seconds);
  model.kernel_seconds = [kernel_seconds = std::move(kernel_seconds), speeds = std::move(speeds)](const Device& device, const KernelCall& call, Precision precision) {
    return kernel_seconds(device, call, precision) / speeds[call.rank];
  };
  return model;
}

Routing rehomed(const Routing& whole, const Survivors& s, Changes::Tokens tokens) {
  struct Block {
    std::int64_t first, last;
  };
  std::vector<std::vector<Block>> blocks(s.up.size());
  const auto pieces = static_cast<int>(s.up.size());
  std::size_t next = 0;
  for (const Rank r : ids<Rank>(whole.ranks())) {
    const std::int64_t first = whole.first_token[r], count = whole.first_token[r + 1] - first;
    if (next < s.up.size() && s.up[next] == r) {
      blocks[next].insert(blocks[next].begin(), {first, first + count});  // its own come first
      ++next;
    } else if (tokens == Changes::Tokens::spread) {
      for (int i = 0; i < pieces; ++i) blocks[static_cast<std::size_t>(i)].push_back({first + chunk_begin(count, i, pieces), first + chunk_begin(count, i + 1, pieces)});
    }
  }
  Routing out;
  out.experts = whole.experts, out.top_k = whole.top_k, out.may_choose_fewer = whole.may_choose_fewer, out.first_token = {0};
  out.seed = whole.seed, out.number = whole.number;
  out.expert.reserve(whole.expert.size()), out.weight.reserve(whole.weight.size());
  for (const std::vector<Block>& of_rank : blocks) {
    for (const Block& b : of_rank) {
      out.expert.insert(out.expert.end(), whole.expert.begin() + b.first * whole.top_k, whole.expert.begin() + b.last * whole.top_k);
      out.weight.insert(out.weight.end(), whole.weight.begin() + b.first * whole.top_k, whole.weight.begin() + b.last * whole.top_k);
      if (!whole.priority.empty()) out.priority.insert(out.priority.end(), whole.priority.begin() + b.first, whole.priority.begin() + b.last);
    }
    out.first_token.push_back(static_cast<std::int64_t>(out.expert.size()) / out.top_k);
  }
  return out;
}

Matrix<std::int64_t> rehomed(const Matrix<std::int64_t>& whole, const Survivors& s, Changes::Tokens tokens) {
  const auto pieces = static_cast<std::int64_t>(s.up.size());
  Matrix<std::int64_t> out(pieces, whole.columns);
  std::int64_t next = 0;
  for (std::int64_t r = 0; r < whole.rows; ++r) {
    const bool up = next < pieces && s.up[static_cast<std::size_t>(next)] == r;
    for (std::int64_t c = 0; c < whole.columns; ++c) {
      const std::int64_t count = whole(r, c);
      if (up) out(next, c) += count;
      if (!up && tokens == Changes::Tokens::spread)
        for (std::int64_t i = 0; i < pieces; ++i) out(i, c) += count / pieces + (i < count % pieces);
    }
    next += up;
  }
  return out;
}

Placement on_whole_machine(Placement p, const Survivors& s) {
  p.first_slot = spread_first(p.first_slot, s);
  return p;
}

Plan on_whole_machine(Plan plan, const Survivors& s) {
  std::vector<std::int64_t> first_token{0}, tokens(static_cast<std::size_t>(s.ranks));
  Reach reach{Matrix<std::int64_t>(s.ranks, s.ranks), Matrix<std::int64_t>(s.ranks, s.nodes), std::move(tokens)};
  std::size_t next = 0;
  for (const Rank r : ids<Rank>(s.ranks)) {
    if (next == s.up.size() || s.up[next] != r) {
      first_token.push_back(first_token.back());
      continue;
    }
    first_token.push_back(plan.routing.first_token[next + 1]);
    const auto row = static_cast<std::int64_t>(next++);
    reach.tokens[r] = plan.reach.tokens[static_cast<std::size_t>(row)];
    for (std::size_t d = 0; d < s.up.size(); ++d) reach.ranks(r, s.up[d]) = plan.reach.ranks(row, static_cast<std::int64_t>(d));
    for (std::size_t n = 0; n < s.node.size(); ++n) reach.nodes(r, s.node[n]) = plan.reach.nodes(row, static_cast<std::int64_t>(n));
  }
  plan.routing.first_token = std::move(first_token);
  plan.reach = std::move(reach);
  plan.placement = on_whole_machine(std::move(plan.placement), s);
  for (Rank& r : plan.shared_rank) r = s.up[static_cast<std::size_t>(r)];
  plan.choices = spread_rows(plan.choices, s), plan.copies = spread_rows(plan.copies, s), plan.limits = spread_rows(plan.limits, s), plan.dropped_on_arrival = spread_rows(plan.dropped_on_arrival, s);
  return plan;
}

Schedule on_whole_machine(Schedule schedule, const Survivors& s) {
  schedule.ranks = s.ranks;
  for (Phase& phase : schedule.phases) {
    if (phase.kind == Phase::Kind::transfer) {
      std::vector<RowTable::Entry> entries(phase.rows.all().begin(), phase.rows.all().end());
      for (RowTable::Entry& e : entries) e.source = s.up[e.source], e.destination = s.up[e.destination];
      phase.rows = RowTable(s.ranks, std::move(entries));
    }
    for (KernelCall& call : phase.kernels) call.rank = s.up[call.rank];
    const auto spread = [&s](auto& by_rank) {
      if (by_rank.empty()) return;
      auto out = std::remove_reference_t<decltype(by_rank)>(static_cast<std::size_t>(s.ranks));
      for (std::size_t i = 0; i < s.up.size(); ++i) out[s.up[i]] = by_rank[i];
      by_rank = std::move(out);
    };
    spread(phase.reduce_bytes), spread(phase.reduced_rows);
  }
  return schedule;
}

Placement among_survivors(Placement p, const Survivors& s) {
  std::vector<std::int32_t> first{0};
  for (const Rank r : s.up) first.push_back(first.back() + p.first_slot[r + 1] - p.first_slot[r]);
  ensure(first.back() == p.slots(), "only ranks that are up have slots");
  p.first_slot = std::move(first);
  return p;
}

Placement what_is_left(const Placement& whole, const Survivors& s) {
  std::vector<std::uint16_t> experts;
  std::vector<std::int32_t> first{0};
  for (const Rank r : ids<Rank>(s.ranks)) {
    if (std::ranges::binary_search(s.up, r)) experts.insert(experts.end(), whole.expert_of_slot.begin() + whole.first_slot[r], whole.expert_of_slot.begin() + whole.first_slot[r + 1]);
    first.push_back(static_cast<std::int32_t>(experts.size()));
  }
  return Placement::from_experts(std::move(experts), std::move(first), static_cast<int>(whole.slots_of_expert.size()));
}

}  // namespace epsim
