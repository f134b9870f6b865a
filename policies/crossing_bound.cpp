#include "policies/crossing_bound.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "policies/concave.h"
#include "policies/solve/eigenvectors.h"

namespace epsim {
namespace {

constexpr std::int64_t kMostExperts = 512;  // eigenvalues of more take too long

/// What the first i values add up to, largest first: [0] is 0.
std::vector<double> sums_of_largest(std::vector<double> values) {
  std::ranges::sort(values, std::greater());
  std::vector<double> sums{0};
  for (const double v : values) sums.push_back(sums.back() + v);
  return sums;
}
double at(const std::vector<double>& sums, std::int64_t i) { return sums[static_cast<std::size_t>(std::min<std::int64_t>(i, static_cast<std::int64_t>(sums.size()) - 1))]; }

/// Pairs among `copies` on `parts` nodes, spread as evenly as can be.
double fewest_pairs(std::int64_t copies, std::int64_t parts) {
  const std::int64_t each = copies / parts, more = copies % parts;
  return static_cast<double>(more * (each + 1) * each + (parts - more) * each * (each - 1)) / 2;
}

}  // namespace

FewestCrossings::FewestCrossings(const Matrix<std::int64_t>& wanted, const Matrix<std::int64_t>& together, std::span<const std::int64_t> tokens, std::int64_t slots) {
  const std::int64_t experts = wanted.rows, nodes = wanted.columns;
  std::vector<double> pairs, own;
  for (std::int64_t e = 0; e < experts; ++e) {
    std::vector<std::int64_t> homes(wanted.row(e).begin(), wanted.row(e).end()), partners(together.row(e).begin(), together.row(e).end());
    std::ranges::sort(homes, std::greater());
    own_ += static_cast<double>(homes.front());
    own.insert(own.end(), homes.begin() + 1, homes.end());
    partners[static_cast<std::size_t>(e)] = 0;
    std::ranges::sort(partners, std::greater());
    for (std::int64_t first = 0; first == 0 || (slots > 1 && first < experts); first += std::max<std::int64_t>(1, slots - 1)) {
      const std::int64_t last = std::min(first + slots - 1, experts);
      const double shared = static_cast<double>(std::accumulate(partners.begin() + first, partners.begin() + last, std::int64_t{0})) / 2;
      if (first == 0)
        pairs_ += shared;
      else
        pairs.push_back(shared);
    }
  }
  more_pairs_ = sums_of_largest(std::move(pairs)), more_own_ = sums_of_largest(std::move(own));
  for (std::int64_t n = 0; n < nodes; ++n) {
    std::vector<double> of;
    for (std::int64_t e = 0; e < experts; ++e) of.push_back(static_cast<double>(wanted(e, n)));
    most_own_ += at(sums_of_largest(std::move(of)), slots);
  }
  for (std::size_t k = 1; k < tokens.size(); ++k) {
    if (tokens[k] == 0) continue;
    const auto copies = static_cast<std::int64_t>(k);
    std::vector<Spread> spreads;
    for (std::int64_t here = 0; here <= copies; ++here) {
      const double beside = static_cast<double>(here * (here - 1)) / 2, home = static_cast<double>(here);
      if (here == copies) spreads.push_back({0, beside, home});
      for (std::int64_t parts = 1; parts <= std::min(copies - here, nodes - 1); ++parts) spreads.push_back({static_cast<double>(parts), beside + fewest_pairs(copies - here, parts), home});
    }
    tokens_.emplace_back(static_cast<double>(tokens[k]), std::move(spreads));
  }
}

void FewestCrossings::find_excess(const Matrix<std::int64_t>& wanted, const Matrix<std::int64_t>& together) {
  std::vector<std::int64_t> experts;  // that tokens want
  std::vector<double> loads;
  for (std::int64_t e = 0; e < wanted.rows; ++e)
    if (const std::int64_t load = std::accumulate(wanted.row(e).begin(), wanted.row(e).end(), std::int64_t{0}); load > 0) {
      experts.push_back(e), loads.push_back(static_cast<double>(load));
      copies_ += loads.back(), squares_ += loads.back() * loads.back();
    }
  const auto n = static_cast<std::int64_t>(experts.size());
  if (n > kMostExperts) return;
  if (n < 2) {
    excess_ = 0;
    return;
  }
  double pairs = 0;
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j)
      if (i != j) pairs += static_cast<double>(together(experts[static_cast<std::size_t>(i)], experts[static_cast<std::size_t>(j)]));
  density_ = pairs / (copies_ * copies_ - squares_);
  Matrix<double> beyond(n, n);
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      const double a = loads[static_cast<std::size_t>(i)], b = loads[static_cast<std::size_t>(j)];
      if (i != j) beyond(i, j) = (static_cast<double>(together(experts[static_cast<std::size_t>(i)], experts[static_cast<std::size_t>(j)])) - density_ * a * b) / std::sqrt(a * b);
    }
  excess_ = largest_eigenvalue(std::move(beyond)) * (1 + 1e-9) + 1e-9;
}

double FewestCrossings::dual(double pair_price, double own_price, double pairs, double own) const {
  double rows = -pair_price * pairs - own_price * own;
  for (const auto& [count, spreads] : tokens_) {
    double least = std::numeric_limits<double>::infinity();
    for (const Spread& s : spreads) least = std::min(least, s.rows + pair_price * s.pairs + own_price * s.own);
    rows += count * least;
  }
  return rows;
}

double FewestCrossings::rows(double pairs, double own) const {
  const auto by_pairs = [&](double pair_price) {
    const auto by_own = [&](double own_price) { return dual(pair_price, own_price, pairs, own); };
    return by_own(highest_at(1, by_own));
  };
  return std::max(0.0, by_pairs(highest_at(1, by_pairs)));
}

double FewestCrossings::balanced(double most) const {
  double squares = copies_ * copies_;  // of what nodes compute: as uneven as can be
  if (most < copies_) {
    const double full = std::floor(copies_ / most), rest = copies_ - full * most;
    squares = full * most * most + rest * rest;
  }
  const double pairs = (density_ * (squares - squares_) + excess_ * copies_) / 2;
  return rows(std::min(pairs_, pairs), std::min(own_, most_own_));
}

double FewestCrossings::touched(double copies) const { return copies / (1 + excess_ + density_ * copies); }

double FewestCrossings::with(std::int64_t replicas, double own_of_replica) const {
  const double pairs = pairs_ + at(more_pairs_, replicas), more_own = replicas > 0 ? std::min(at(more_own_, replicas), own_of_replica * static_cast<double>(replicas)) : 0, own = std::min(own_ + more_own, most_own_);
  return rows(pairs, own);
}

}  // namespace epsim
