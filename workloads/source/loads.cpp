#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "base/rng.h"
#include "workloads/import/load_dump.h"
#include "workloads/source/shared/file.h"

namespace epsim::parts_source {
namespace {

constexpr int kOrders = 64;  // expert orders a layer is sampled over

/// Inclusion probabilities proportional to counts, with sum k. An expert whose share would pass 1 is taken by every token, and the others share what remains in
/// proportion to their counts; so the marginals are exact wherever k times the largest share is at most 1, and the nearest possible otherwise.
std::vector<double> inclusion(const std::vector<double>& counts, int top_k) {
  std::vector<double> pi(counts.size(), 0.0);
  double left = std::accumulate(counts.begin(), counts.end(), 0.0);
  int places = top_k;
  for (bool more = true; more;) {
    more = false;
    double taken = 0;
    int certain = 0;
    for (std::size_t e = 0; e < counts.size(); ++e)
      if (pi[e] < 1 && counts[e] > 0 && counts[e] * places >= left) pi[e] = 1, taken += counts[e], ++certain, more = true;
    left -= taken, places -= certain;
  }
  for (std::size_t e = 0; e < counts.size(); ++e)
    if (pi[e] < 1 && places > 0 && left > 0) pi[e] = counts[e] * places / left;
  return pi;
}

/// Systematic sampling of k distinct experts (Madow 1949) over several random orders of them, so that no pair is tied to its neighbourhood in one order.
struct Sampler {
  std::vector<std::uint32_t> order;  // [kOrders][E]
  std::vector<double> reach;         // [kOrders][E] running sums of the inclusion probabilities in that order; the last is k

  Sampler(const std::vector<double>& pi, int top_k, std::uint64_t seed, int layer) {
    const std::size_t experts = pi.size();
    order.resize(kOrders * experts), reach.resize(kOrders * experts);
    for (std::size_t o = 0; o < kOrders; ++o) {
      const std::span<std::uint32_t> mine(order.data() + o * experts, experts);
      Rng(seed, Stream::popularity, (std::uint64_t{1} << 32) + o, static_cast<std::uint32_t>(layer)).permutation(mine);
      double sum = 0;
      std::size_t last = 0;
      for (std::size_t i = 0; i < experts; ++i) {
        reach[o * experts + i] = sum += pi[mine[i]];
        if (pi[mine[i]] > 0) last = i;
      }
      for (std::size_t i = last; i < experts; ++i) reach[o * experts + i] = top_k;  // whatever rounding left
    }
  }
};

}  // namespace

Source loads(Params& p, const SourceContext* context) {
  Source source;
  source.summary = "choices drawn so that experts are chosen in proportion to recorded counts: JSON with logical_count [[layer][expert]] and, if there, layers";
  source.yields = Source::Yields::choices;
  source.first_token = read_token_blocks(p, context);
  const std::string file = p.path("file", "the recorded counts (JSON)");
  const bool repeat = p.flag("repeat", "use the file's layers again where the model has more", false);
  if (!p.usable() || !context) return source;
  LoadDump dump;
  try {
    dump = read_load_dump(read_text(file));
  } catch (const InputError& e) {
    report_file(p, e);
    return source;
  }
  if (dump.experts() != context->experts) p.error("file", fmt::format("{} counts {} experts, the model has {}", file, dump.experts(), context->experts));
  const auto rows = dump.layers.empty() || repeat ? rows_by_position(p, *context, static_cast<std::int64_t>(dump.logical_count.size()), repeat, file)
                                                  : rows_by_name(p, *context, dump.layers, file);
  if (!p.usable()) return source;
  auto samplers = std::make_shared<std::map<int, Sampler>>();
  for (const auto& [layer, row] : rows) {
    const std::vector<std::int64_t>& counts = dump.logical_count[static_cast<std::size_t>(row)];
    if (std::count_if(counts.begin(), counts.end(), [](std::int64_t c) { return c > 0; }) < context->top_k) {
      p.error("file", fmt::format("{}: logical_count[{}] has fewer than top_k = {} experts with a count above 0", file, row, context->top_k));
      return source;
    }
    samplers->try_emplace(layer, inclusion({counts.begin(), counts.end()}, context->top_k), context->top_k, context->seed, layer);
  }
  source.choices = [samplers, seed = context->seed, k = context->top_k, experts = static_cast<std::size_t>(context->experts)](
                       int layer, std::int64_t first, std::int64_t count, std::span<std::uint16_t> out, std::span<float>) {
    const Sampler& s = samplers->at(layer);
    for (std::int64_t i = 0; i < count; ++i) {
      Rng rng(seed, Stream::choices, static_cast<std::uint64_t>(first + i), static_cast<std::uint32_t>(layer));
      const std::size_t begin = rng.below(kOrders) * experts;
      const double u = rng.uniform();
      const auto row = s.reach.begin() + static_cast<std::ptrdiff_t>(begin);
      auto at = row;
      for (int j = 0; j < k; ++j) {
        const auto last = row + static_cast<std::ptrdiff_t>(experts) - (k - j);  // leaves room for the choices to come, whatever rounding did
        at = std::min(std::upper_bound(at, last, u + j), last);
        out[static_cast<std::size_t>(i * k + j)] = static_cast<std::uint16_t>(s.order[begin + static_cast<std::size_t>(at - row)]);
        ++at;  // a share of at most 1 is met once; rounding must not meet it twice
      }
    }
  };
  return source;
}

}  // namespace epsim::parts_source
