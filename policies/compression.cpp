#include "policies/compression.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/parallel.h"

namespace epsim {

int ExpertMap::pruned() const { return static_cast<int>(std::ranges::count(to, kNoExpert)); }

ExpertMap ExpertMap::of_the_rest() const {
  ExpertMap rest = *this;
  std::erase(rest.to, kNoExpert);
  return rest;
}

void ExpertMap::check() const {
  std::vector<bool> made(static_cast<std::size_t>(experts));
  for (const std::uint16_t e : to) {
    ensure(e == kNoExpert || e < experts, "an expert becomes one of those that are left");
    if (e != kNoExpert) made[e] = true;
  }
  ensure(experts > 0 && std::ranges::find(made, false) == made.end(), "every expert that is left is one that another becomes");
}

ExpertMap unchanged(int experts) {
  ExpertMap map{experts, std::vector<std::uint16_t>(static_cast<std::size_t>(experts)), 0};
  std::iota(map.to.begin(), map.to.end(), std::uint16_t{0});
  return map;
}

void compress(const ExpertMap& map, std::span<std::uint16_t> experts, std::span<float> weights) {
  std::size_t made = 0;
  float before = 0, lost = 0, first = 0;
  bool begun = false;
  for (std::size_t c = 0; c < experts.size(); ++c) {
    const std::uint16_t chosen = experts[c];
    const float weight = weights[c];
    if (chosen == kNoExpert) continue;
    before += weight;
    if (chosen >= map.to.size()) {  // it computes nothing, and stays behind those that do
      experts[made] = static_cast<std::uint16_t>(map.experts + static_cast<int>(chosen - map.to.size())), weights[made] = weight;
      ++made;
      continue;
    }
    const bool skipped = begun && static_cast<double>(weight) < map.skip_below * static_cast<double>(first);
    if (!begun) begun = true, first = weight;
    const std::uint16_t becomes = skipped ? kNoExpert : map.to[chosen];
    if (becomes == kNoExpert) {
      lost += weight;
      continue;
    }
    const auto same = std::ranges::find(experts.first(made), becomes);
    const auto place = static_cast<std::size_t>(same - experts.begin());
    if (place < made) {
      weights[place] += weight;
    } else {
      experts[made] = becomes, weights[made] = weight;
      ++made;
    }
  }
  std::ranges::fill(experts.subspan(made), kNoExpert);
  std::ranges::fill(weights.subspan(made), 0.0F);
  if (lost == 0) return;
  const float left = std::accumulate(weights.begin(), weights.begin() + static_cast<std::ptrdiff_t>(made), 0.0F);
  for (float& w : weights.first(made)) w = left != 0 ? w * (before / left) : w;
}

void ExpertsSeen::add(const Routing& routing) {
  const auto k = static_cast<std::size_t>(routing.top_k);
  for (std::size_t t = 0; t < routing.expert.size(); t += k) {
    for (std::size_t c = t; c < t + k; ++c)
      if (routing.computes(c)) ++choices[routing.expert[c]];
    if (k >= 2 && routing.computes(t) && routing.computes(t + 1) && routing.weight[t] > 0) second_shares.push_back(routing.weight[t + 1] / routing.weight[t]);
  }
}

void ExpertsSeen::add_products(std::span<const float> logits) {
  if (gate_products.rows == 0) gate_products = Matrix<double>(experts, experts);
  const auto width = static_cast<std::size_t>(experts);
  parallel_for(experts, [&](std::int64_t a) {
    const std::span<double> row = gate_products.row(a);
    for (std::size_t t = 0; t < logits.size(); t += width)
      for (std::size_t b = 0; b < width; ++b) row[b] += double{logits[t + static_cast<std::size_t>(a)]} * double{logits[t + b]};
  });
}

void ExpertsSeen::add_products(const Routing& routing) {
  if (gate_products.rows == 0) gate_products = Matrix<double>(experts, experts);
  const auto k = static_cast<std::size_t>(routing.top_k);
  for (std::size_t t = 0; t < routing.expert.size(); t += k)
    for (std::size_t a = t; a < t + k; ++a)
      for (std::size_t b = t; b < t + k; ++b)
        if (routing.computes(a) && routing.computes(b)) gate_products(routing.expert[a], routing.expert[b]) += double{routing.weight[a]} * double{routing.weight[b]};
}

double ExpertsSeen::likeness(int a, int b) const {
  const double lengths = gate_products(a, a) * gate_products(b, b);
  return lengths > 0 ? gate_products(a, b) / std::sqrt(lengths) : 0;
}

}  // namespace epsim
