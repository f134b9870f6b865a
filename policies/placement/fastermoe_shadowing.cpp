#include <algorithm>
#include <numeric>

#include "base/parallel.h"
#include "policies/placement/shared/homes.h"

namespace epsim::parts_placement {
namespace {

/// Seconds that FasterMoE's model counts with.
struct Costs {
  double compute, send;  ///< a token, in an expert and over the network
  double model;          ///< an expert's parameters over the network
};

/// How many of the experts, in falling order of their tokens, are worth a shadow: one more as long as the modelled time falls, and never the last.
std::size_t shadows(std::span<const std::int64_t> falling, const Costs& c) {
  const auto busiest = [&](std::size_t i) { return (3 * c.compute + 4 * c.send) * static_cast<double>(falling[i]); };
  std::size_t n = 0;
  for (double best = busiest(0); n + 1 < falling.size(); ++n) {
    const double shadowed = busiest(n + 1) + static_cast<double>(n + 1) * c.model;
    if (shadowed >= best) break;
    best = shadowed;
  }
  return n;
}

}  // namespace

/// FasterMoE's dynamic shadowing (He et al., PPoPP 2022; github.com/laekov/fastmoe): the parameters of the hottest experts are broadcast to all ranks, where
/// their tokens then stay. The time of a layer is taken for that of its busiest expert (one heavy expert a rank): 3 passes of compute and 4 of messages for its
/// tokens, and one broadcast a shadow; experts are shadowed, hottest first, as long as that falls. Sizes are the model's where it is known, else FastMoE's
/// defaults (hidden 2048, two matrices, fp32). Shares follow the sources of tokens, evenly where sources are not known.
PlacementPolicy fastermoe_shadowing(Params& p, const Shape*) {
  PlacementPolicy policy;
  policy.summary =
      "FasterMoE's shadowing: copies the hottest experts to every rank, so that their tokens stay at home, while the modelled time of a layer falls; plans shares, which the replica rule `quota` follows.";
  const double bandwidth = p.bandwidth("bandwidth", "rate of the network that the time model counts with", 6.25e9);
  const double flops = p.number("flops", "FLOP/s of a rank that the time model counts with", 11.5e12, 1);
  const double alpha = p.number("alpha", "inner width of an expert in parts of the hidden size", 0, 1e-6, 1e6, "the model's, or 2");
  const std::int64_t hidden = p.integer("d_model", "hidden size", 0, 1, std::int64_t{1} << 20, "the model's, or 2048");
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    const Pricing& model = problem.pricing;
    const bool known = model.hidden > 0;
    const double h = static_cast<double>(hidden ? hidden : known ? model.hidden : 2048);
    const double inner = alpha > 0 ? alpha * h : known ? static_cast<double>(model.expert_ffn) : 2 * h;
    const double weights = (known ? model.expert_matrices : 2) * h * inner;
    const Costs costs{2 * weights / flops, h * (known ? bytes_per_value(model.dispatch) : 4) / bandwidth,
                      weights * (known ? bytes_per_value(model.weights) : 4) / bandwidth};

    std::vector<Placement> placements(problem.counts.size());
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
      const auto layer = static_cast<std::size_t>(l);
      const std::vector<std::int64_t> loads = problem.loads(layer);
      const std::vector<Rank> home = home_ranks(problem, layer);
      std::vector<Expert> order;
      for (const Expert e : ids<Expert>(problem.experts)) order.push_back(e);
      std::ranges::stable_sort(order, std::ranges::greater{}, [&](Expert e) { return loads[e]; });
      std::vector<std::int64_t> falling = loads;
      std::ranges::sort(falling, std::ranges::greater{});

      const Matrix<std::int64_t>& sent = problem.counts[layer];
      std::vector<Quota> quotas;
      order.resize(shadows(falling, costs));
      for (const Expert e : order)
        for (const Rank r : ids<Rank>(problem.ranks)) {
          const std::int64_t even = loads[e] * (r + 1) / problem.ranks - loads[e] * r / problem.ranks;
          if (r != home[e]) quotas.push_back({e, r, sent.rows == problem.ranks ? sent(r, e) : even});
        }
      placements[layer] = place_quotas(home, problem.ranks, loads, std::move(quotas));
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
