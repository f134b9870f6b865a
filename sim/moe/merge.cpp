#include "sim/moe/merge.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/matrix.h"
#include "base/parallel.h"
#include "policies/solve/assignment.h"

namespace epsim {
namespace {

std::size_t sized(std::int64_t n) { return static_cast<std::size_t>(n); }

/// What belongs to a hidden unit: [hidden] strided numbers of w1, w3 and w2 and, of b1 and b3, one.
struct Part {
  const float* FfnView::*from;
  std::vector<float> ExpertWeights::*to;
  std::int64_t length, step, next_unit;  ///< numbers of a unit, from one to the next, and from one unit to the next
};
std::vector<Part> parts_of_unit(const FfnShape& s) {
  return {{&FfnView::w1, &ExpertWeights::w1, s.hidden, s.ffn, 1},
          {&FfnView::w3, &ExpertWeights::w3, s.hidden, s.ffn, 1},
          {&FfnView::w2, &ExpertWeights::w2, s.hidden, 1, s.hidden},
          {&FfnView::b1, &ExpertWeights::b1, 1, 1, 1},
          {&FfnView::b3, &ExpertWeights::b3, 1, 1, 1}};
}

/// An expert that takes part in a mean, and the unit of its own that stands for each unit of the mean.
struct Member {
  FfnView weights;
  double share;
  std::vector<int> unit;
};

/// Appends the mean of some experts; exact where they are all equal, for shares are whole numbers.
void append_mean(const FfnShape& s, const std::vector<Member>& members, ExpertWeights& out) {
  double all = 0;
  for (const Member& m : members) all += m.share;
  for (const Part& part : parts_of_unit(s)) {
    if (!(members.front().weights.*part.from)) continue;
    std::vector<float>& to = out.*part.to;
    const std::size_t begin = to.size();
    to.resize(begin + sized(part.length * s.ffn));
    for (std::int64_t u = 0; u < s.ffn; ++u)
      for (std::int64_t i = 0; i < part.length; ++i) {
        double sum = 0;
        for (const Member& m : members) sum += m.share * double{(m.weights.*part.from)[m.unit[sized(u)] * part.next_unit + i * part.step]};
        to[begin + sized(u * part.next_unit + i * part.step)] = static_cast<float>(sum / all);
      }
  }
  if (!members.front().weights.b2) return;
  for (std::int64_t i = 0; i < s.hidden; ++i) {
    double sum = 0;
    for (const Member& m : members) sum += m.share * double{m.weights.b2[i]};
    out.b2.push_back(static_cast<float>(sum / all));
  }
}

}  // namespace

std::vector<int> matching_units(const FfnShape& s, const FfnView& one, const FfnView& other) {
  Matrix<double> cost(s.ffn, s.ffn);
  parallel_for(s.ffn, [&](std::int64_t a) {
    for (std::int64_t b = 0; b < s.ffn; ++b)
      for (const Part& part : parts_of_unit(s)) {
        const float *x = one.*part.from, *y = other.*part.from;
        for (std::int64_t i = 0; x && i < part.length; ++i) cost(a, b) -= double{x[a * part.next_unit + i * part.step]} * double{y[b * part.next_unit + i * part.step]};
      }
  });
  return least_cost_assignment(cost);
}

ExpertWeights merged_experts(const FfnShape& s, const ExpertWeights& weights, const ExpertMap& map, std::span<const std::int64_t> choices, bool align) {
  ensure(map.to.size() == choices.size(), "every expert was counted");
  std::vector<int> plain(sized(s.ffn));
  std::iota(plain.begin(), plain.end(), 0);
  ExpertWeights out;
  for (int left = 0; left < map.experts; ++left) {
    std::vector<std::int64_t> group;
    for (std::size_t e = 0; e < map.to.size(); ++e)
      if (map.to[e] == left) group.push_back(static_cast<std::int64_t>(e));
    const std::int64_t dominant = *std::ranges::max_element(group, {}, [&](std::int64_t e) { return choices[sized(e)]; });
    const bool counted = choices[sized(dominant)] > 0;
    std::vector<Member> members;
    for (const std::int64_t e : group) {
      const FfnView view = view_of(weights, s, e);
      members.push_back({view, counted ? static_cast<double>(choices[sized(e)]) : 1.0, align && e != dominant ? matching_units(s, view_of(weights, s, dominant), view) : plain});
    }
    append_mean(s, members, out);
  }
  return out;
}

}  // namespace epsim
