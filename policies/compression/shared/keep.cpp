#include "policies/compression/shared/keep.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

namespace epsim {

int read_keep(Params& params, const Shape* shape) {
  const auto keep = static_cast<int>(params.integer("keep", "experts of each layer that are left", {}, 1, 65'535));
  if (!params.usable() || !shape) return keep;
  if (keep > shape->experts) params.error("keep", fmt::format("{} experts cannot be left, the model has {}", keep, shape->experts));
  if (keep < shape->top_k) params.error("keep", fmt::format("{} experts are too few: a token chooses {}", keep, shape->top_k));
  return keep;
}

namespace {

template <class Value>
std::vector<int> places_of_largest(std::span<const Value> values, int keep) {
  std::vector<int> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::ranges::greater(), [&](int e) { return values[static_cast<std::size_t>(e)]; });
  order.resize(static_cast<std::size_t>(keep));
  std::ranges::sort(order);
  return order;
}

}  // namespace

std::vector<int> largest(std::span<const double> values, int keep) { return places_of_largest(values, keep); }
std::vector<int> largest(std::span<const std::int64_t> values, int keep) { return places_of_largest(values, keep); }

ExpertMap keep_only(int experts, std::span<const int> kept) {
  ExpertMap map{static_cast<int>(kept.size()), std::vector<std::uint16_t>(static_cast<std::size_t>(experts), kNoExpert), 0};
  for (std::size_t i = 0; i < kept.size(); ++i) map.to[static_cast<std::size_t>(kept[i])] = static_cast<std::uint16_t>(i);
  return map;
}

}  // namespace epsim
