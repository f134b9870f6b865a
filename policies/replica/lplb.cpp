#include <algorithm>
#include <cmath>
#include <optional>

#include "policies/replica/shared/quotas.h"

namespace epsim::parts_replica {
namespace {

/// A symmetric positive definite matrix as U^T U, factored in place in the upper triangle; `factor` gives whether it is one. Then `solve` gives its inverse times a vector.
class Cholesky {
 public:
  explicit Cholesky(Matrix<double> m) : u_(std::move(m)) {}
  bool factor() {
    for (std::int64_t j = 0; j < u_.rows; ++j) {
      // Row by row, so that memory is read in its order.
      double* row = u_.row(j).data();
      for (std::int64_t k = 0; k < j; ++k) {
        const double* above = u_.row(k).data();
        const double f = above[j];
        for (std::int64_t i = j; i < u_.rows; ++i) row[i] -= f * above[i];
      }
      if (!(u_(j, j) > 0)) return false;
      const double scale = 1 / std::sqrt(u_(j, j));
      for (std::int64_t i = j; i < u_.rows; ++i) u_(j, i) *= scale;
    }
    return true;
  }
  void solve(std::span<double> b) const {
    for (std::int64_t k = 0; k < u_.rows; ++k) {
      b[k] /= u_(k, k);
      for (std::int64_t i = k + 1; i < u_.rows; ++i) b[i] -= u_(k, i) * b[k];
    }
    for (std::int64_t i = u_.rows; i-- > 0;) {
      for (std::int64_t k = i + 1; k < u_.rows; ++k) b[i] -= u_(i, k) * b[k];
      b[i] /= u_(i, i);
    }
  }

 private:
  Matrix<double> u_;
};

/// One replica of a replicated expert: its share is a variable.
struct Share {
  std::size_t expert, rank;  ///< rows of the program
  std::size_t slot;
};

/// The program in the form that interior points want: equations with variables from 0 up. Rows are the replicated experts (their shares sum to 1) and the ranks (fixed load + shares x weights + slack = M). Variables are the shares,
/// a slack for each rank, M (cost 1) and an artificial one (cost 1000) that makes all ones a feasible beginning.
class AffineScaling {
 public:
  AffineScaling(std::vector<Share> shares, std::vector<double> weight, std::vector<double> fixed) : shares_(std::move(shares)), weight_(std::move(weight)), fixed_(std::move(fixed)) {
    x_.assign(shares_.size() + fixed_.size() + 2, 1);
    artificial_ = right();
    const std::vector<double> left = times(x_, false);
    for (std::size_t i = 0; i < left.size(); ++i) artificial_[i] -= left[i];
  }

  /// One step along the scaled descent, 0.999 of the way to the wall; gives how far the wall's variable was to fall for its size (0 where nothing falls), or nothing where the equations cannot be solved.
  std::optional<double> step() {
    const std::size_t experts = weight_.size(), ranks = fixed_.size(), n = shares_.size();
    const double m = x_[n + ranks], artificial = x_[n + ranks + 1];
    const auto squared = [&](std::size_t i) { return x_[i] * x_[i]; };
    // A D^2 A^T without the artificial column: experts do not meet each other in it, so they are eliminated first.
    std::vector<double> diagonal(experts);
    for (std::size_t i = 0; i < n; ++i) diagonal[shares_[i].expert] += squared(i);
    Matrix<double> schur(static_cast<std::int64_t>(ranks), static_cast<std::int64_t>(ranks));
    for (std::size_t a = 0; a < ranks; ++a) {
      for (std::size_t b = 0; b < ranks; ++b) schur(a, b) = m * m;
      schur(a, a) += squared(n + a);
    }
    for (std::size_t i = 0; i < n; ++i) {
      const double w = weight_[shares_[i].expert];
      schur(shares_[i].rank, shares_[i].rank) += squared(i) * w * w;
      for (std::size_t j = first_of(i); j < n && shares_[j].expert == shares_[i].expert; ++j)
        schur(shares_[i].rank, shares_[j].rank) -= squared(i) * squared(j) * w * w / diagonal[shares_[i].expert];
    }
    Cholesky factored(std::move(schur));
    if (!factored.factor()) return {};
    const auto inverse = [&](std::vector<double> b) {
      const std::span<double> on_ranks = std::span(b).subspan(experts);
      for (std::size_t i = 0; i < n; ++i) on_ranks[shares_[i].rank] -= squared(i) * weight_[shares_[i].expert] * b[shares_[i].expert] / diagonal[shares_[i].expert];
      factored.solve(on_ranks);
      for (std::size_t e = 0; e < experts; ++e) b[e] /= diagonal[e];
      for (std::size_t i = 0; i < n; ++i) b[shares_[i].expert] -= squared(i) * weight_[shares_[i].expert] * on_ranks[shares_[i].rank] / diagonal[shares_[i].expert];
      return b;
    };
    // A D^2 c, then w = (A D^2 A^T)^-1 A D^2 c, the artificial column coming in by Sherman and Morrison.
    std::vector<double> costs(experts + ranks);
    for (std::size_t r = 0; r < ranks; ++r) costs[experts + r] = -m * m;
    for (std::size_t i = 0; i < costs.size(); ++i) costs[i] += kArtificialCost * artificial * artificial * artificial_[i];
    std::vector<double> prices = inverse(costs);
    const std::vector<double> column = inverse(artificial_);
    const double part = artificial * artificial * dot(artificial_, prices) / (1 + artificial * artificial * dot(artificial_, column));
    for (std::size_t i = 0; i < prices.size(); ++i) prices[i] -= part * column[i];
    // D (c - A^T w)
    std::vector<double> fall(x_.size());
    for (std::size_t i = 0; i < n; ++i) fall[i] = -prices[shares_[i].expert] - weight_[shares_[i].expert] * prices[experts + shares_[i].rank];
    fall[n + ranks] = 1;
    for (std::size_t r = 0; r < ranks; ++r) {
      fall[n + r] = -prices[experts + r];
      fall[n + ranks] += prices[experts + r];
    }
    fall[n + ranks + 1] = kArtificialCost - dot(artificial_, prices);
    for (std::size_t i = 0; i < fall.size(); ++i) fall[i] *= x_[i];
    const double largest = *std::ranges::max_element(fall);
    if (largest <= 0) return 0;
    for (std::size_t i = 0; i < fall.size(); ++i) x_[i] *= 1 - 0.999 / largest * fall[i];
    return largest;
  }

  double artificial() const { return x_.back(); }
  /// The largest part by which an equation is missed.
  double residual() const {
    const std::vector<double> left = times(x_, true), wanted = right();
    double worst = 0;
    for (std::size_t i = 0; i < left.size(); ++i) worst = std::max(worst, std::abs(left[i] - wanted[i]));
    return worst;
  }
  double share(std::size_t i) const { return x_[i]; }

 private:
  static constexpr double kArtificialCost = 1000;

  static double dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
  }
  /// Shares of one expert follow each other.
  std::size_t first_of(std::size_t i) const {
    while (i > 0 && shares_[i - 1].expert == shares_[i].expert) --i;
    return i;
  }
  std::vector<double> right() const {
    std::vector<double> b(weight_.size(), 1);
    for (const double f : fixed_) b.push_back(-f);
    return b;
  }
  std::vector<double> times(const std::vector<double>& x, bool with_artificial) const {
    const std::size_t experts = weight_.size(), ranks = fixed_.size(), n = shares_.size();
    std::vector<double> sums(experts + ranks);
    for (std::size_t i = 0; i < n; ++i) {
      sums[shares_[i].expert] += x[i];
      sums[experts + shares_[i].rank] += weight_[shares_[i].expert] * x[i];
    }
    for (std::size_t r = 0; r < ranks; ++r) sums[experts + r] += x[n + r] - x[n + ranks];
    for (std::size_t i = 0; with_artificial && i < sums.size(); ++i) sums[i] += artificial_[i] * x.back();
    return sums;
  }

  std::vector<Share> shares_;
  std::vector<double> weight_;      // [replicated experts] load, in parts of the heaviest expert's
  std::vector<double> fixed_;       // [R] load of experts with one replica, likewise
  std::vector<double> artificial_;  // [rows] its column
  std::vector<double> x_;
};

/// Shares [P] of the program; even ones where it was not solved well enough.
std::vector<double> shares_of_program(const ReplicaRule::Layer& layer, int steps) {
  const std::vector<std::int64_t> copies = replicas::copies_of_expert(layer);
  const std::vector<Rank> rank_of = replicas::ranks_of_slots(layer.placement);
  const auto heaviest = static_cast<double>(*std::ranges::max_element(copies));
  std::vector<double> out(rank_of.size()), weight, fixed(static_cast<std::size_t>(layer.placement.ranks()));
  std::vector<Share> shares;
  for (std::size_t e = 0; e < copies.size(); ++e) {
    const std::vector<Slot>& slots = layer.placement.slots_of_expert[e];
    const double load = heaviest > 0 ? static_cast<double>(copies[e]) / heaviest : 0;
    for (const Slot s : slots) {
      out[static_cast<std::size_t>(s)] = 1 / static_cast<double>(slots.size());
      const auto rank = static_cast<std::size_t>(rank_of[static_cast<std::size_t>(s)]);
      if (slots.size() == 1)
        fixed[rank] += load;
      else
        shares.push_back({weight.size(), rank, static_cast<std::size_t>(s)});
    }
    if (slots.size() > 1) weight.push_back(load);
  }
  if (shares.empty() || heaviest == 0) return out;
  AffineScaling program(shares, weight, std::move(fixed));
  double fall = 1;
  for (int i = 0; i < steps; ++i) {
    const std::optional<double> fell = program.step();
    if (!fell) break;  // so near a corner that the equations have lost their rank: what was reached is judged
    fall = *fell;
    if (fall < 1e-6) break;  // more steps would only add rounding
  }
  if (!(fall < 0.1 && program.artificial() < 1e-4 && program.residual() < 0.05)) return out;
  std::vector<double> sum(weight.size());
  for (std::size_t i = 0; i < shares.size(); ++i) sum[shares[i].expert] += program.share(i);
  for (std::size_t i = 0; i < shares.size(); ++i) out[shares[i].slot] = program.share(i) / sum[shares[i].expert];
  return out;
}

}  // namespace

/// DeepSeek's LPLB (2025): a linear program for each batch splits every duplicated expert between its original and its duplicate so that the fullest rank is lowest. It is solved by a few steps of affine scaling from all ones (Dikin 1967), 0.999
/// of the way to the wall each; where the last step still fell by 0.1 or more, the artificial variable is 1e-4 or more, or an equation is missed by 0.05 or more, every expert is split evenly. Loads are in parts of the heaviest
/// expert's. Copies are dealt by its hash, as with `hashed_share`. Experts of more than two replicas, which LPLB does not have, split over all of them (as SGLang's program does).
ReplicaRule lplb(Params& p, const Shape*) {
  ReplicaRule rule;
  rule.summary = "A few interior-point steps for each batch split replicated experts so that the fullest rank is lowest, or evenly where they fail; copies are hashed (DeepSeek's LPLB).";
  const auto steps = static_cast<int>(p.integer("steps", "steps of the interior-point method", 5, 1, 1000));
  if (!p.usable()) return rule;
  rule.decide = [steps](const ReplicaRule::Layer& layer) { return replicas::deal_by_hash(layer, replicas::quotas_of_shares(layer, shares_of_program(layer, steps))); };
  return rule;
}

}  // namespace epsim::parts_replica
