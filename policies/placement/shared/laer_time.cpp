#include "policies/placement/shared/laer_time.h"

#include <algorithm>

#include "policies/placement/shared/slots.h"

namespace epsim {

LaerSettings read_laer(Params& params, const Shape* shape) {
  LaerSettings s;
  s.slots = read_slots(params, shape, "one redundant slot a rank: experts rounded up to the ranks, and one more a rank");
  s.flops = params.number("v_comp", "FLOP/s of a rank that the time model counts with", 0, 1, 1e300, "what the device reaches, or 312e12");
  s.intra = params.bandwidth("v_intra", "rate inside a node that the time model counts with", 216.269e9);
  s.inter = params.bandwidth("v_inter", "rate between nodes that the time model counts with", 88.9539e9);
  s.recompute = params.flag("recompute", "experts compute forward once more in the backward pass", false);
  return s;
}

std::int64_t laer_slots(const LaerSettings& settings, const Problem& problem) {
  return settings.slots ? settings.slots : ((std::int64_t{problem.experts} + problem.ranks - 1) / problem.ranks + 1) * problem.ranks;
}

LaerTime::LaerTime(const Problem& problem, std::size_t layer, const LaerSettings& settings, std::span<const int> node_of_rank)
    : problem_(problem), layer_(layer), node_(node_of_rank) {
  const Pricing& p = problem.pricing;
  const bool known = p.hidden > 0;
  const double flop = known ? 2.0 * p.expert_matrices * static_cast<double>(p.hidden) * static_cast<double>(p.expert_ffn) : 2.0 * 3 * 4096 * 14336;
  double rate = settings.flops;
  if (rate == 0) rate = problem.topology ? problem.topology->device().flops(p.weights) * problem.topology->device().share_of_peak(p.weights) : 312e12;
  const double row = known ? static_cast<double>(p.dispatch_row()) : 4096 * 2;
  compute_s_ = flop / rate, intra_s_ = row / settings.intra, inter_s_ = row / settings.inter, passes_ = settings.recompute ? 4 : 3;
}

double LaerTime::Estimate::max_over_min() const {
  const auto [least, most] = std::ranges::minmax(load);
  return (most + 1) / (least + 1);
}

LaerTime::Estimate LaerTime::operator()(const Placement& placement) const {
  const Matrix<std::int64_t>& sent = problem_.counts[layer_];
  const bool sources = sent.rows == problem_.ranks;
  const std::vector<std::int64_t> loads = problem_.loads(layer_);
  Estimate out{0, std::vector<double>(static_cast<std::size_t>(problem_.ranks))};
  std::vector<double> at_rank(out.load.size()), at_node(static_cast<std::size_t>(problem_.nodes)), from_node(at_node.size());
  double sending = 0;
  std::vector<Rank> holders;
  for (const Expert e : ids<Expert>(problem_.experts)) {
    std::ranges::fill(from_node, 0);
    holders.clear();
    for (const Slot s : placement.slots_of_expert[e]) holders.push_back(placement.rank_of(s));
    for (const Rank r : holders) ++at_rank[r], ++at_node[static_cast<std::size_t>(node_[static_cast<std::size_t>(r)])];
    const auto copies = static_cast<double>(holders.size());
    double far = 0;  // tokens of sources whose node has no copy
    for (const Rank r : ids<Rank>(problem_.ranks)) {
      const double tokens = sources ? static_cast<double>(sent(r, e)) : static_cast<double>(loads[e]) / problem_.ranks;
      const auto n = static_cast<std::size_t>(node_[static_cast<std::size_t>(r)]);
      if (at_node[n] > 0)
        sending += tokens * (at_node[n] - at_rank[r]) / at_node[n] * intra_s_, from_node[n] += tokens;
      else
        sending += tokens * inter_s_, far += tokens;
    }
    for (const Rank r : holders) {
      const auto n = static_cast<std::size_t>(node_[static_cast<std::size_t>(r)]);
      out.load[r] += from_node[n] / at_node[n] + far / copies;
    }
    for (const Rank r : holders) at_rank[r] = 0, at_node[static_cast<std::size_t>(node_[static_cast<std::size_t>(r)])] = 0;
  }
  double slowest = 0;
  for (std::size_t r = 0; r < out.load.size(); ++r) slowest = std::max(slowest, out.load[r] * compute_s_ / (problem_.speed.empty() ? 1 : problem_.speed[r]));
  out.seconds = 4 * sending + passes_ * slowest;
  return out;
}

}  // namespace epsim
