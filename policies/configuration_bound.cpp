#include "policies/configuration_bound.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

namespace epsim {
namespace {

constexpr std::size_t kSets = 6'000;   // of all ranks
constexpr int kRounds = 40;            // of raising weights
constexpr int kHopeful = 10;           // rounds after which weights that are far from refuting are given up
constexpr double kStep = 1.02;         // from a time that is refuted to the next that is tried
constexpr int kSteps = 12;
constexpr int kBisections = 3;         // of the last step

/// Sets of experts, one after another.
struct Sets {
  std::vector<std::uint16_t> experts;      // of each set ascending
  std::vector<std::uint32_t> first = {0};  // [sets + 1]
  std::size_t size() const { return first.size() - 1; }
  std::span<const std::uint16_t> operator[](std::size_t i) const { return std::span(experts).subspan(first[i], first[i + 1] - first[i]); }
};

/// The sets of experts that one rank can be done with by a time; none that only lacks experts behind its last.
class Finder {
 public:
  Finder(const Configurations& layer, std::int64_t rank, double seconds, std::size_t most)
      : layer_(layer), seconds_(seconds), most_(most), slots_(static_cast<std::size_t>(layer.slots[static_cast<std::size_t>(rank)])), width_(3 + layer.in.size() + layer.out.size()) {
    for (std::int64_t e = 0; e < layer.compute.rows; ++e) {
      of_.insert(of_.end(), {layer.compute(e, rank), layer.enters(e, rank), layer.leaves(e, rank)});
      for (const std::vector<Configurations::Way>* ways : {&layer.in, &layer.out})
        for (const Configurations::Way& way : *ways) of_.push_back(way.seconds(e, rank));
    }
    sums_.resize((slots_ + 2) * width_);
  }

  /// Whether there are no more than `most`.
  bool find(Sets& found) {
    std::vector<std::uint16_t> all(of_.size() / width_);
    std::iota(all.begin(), all.end(), std::uint16_t{0});
    return slots_ == 0 || extend(all, found);
  }

 private:
  /// Seconds of the set with an expert more; leaves its sums at `to`.
  double with(const double* sums, std::uint16_t expert, double* to) const {
    const double* const of = &of_[expert * width_];
    to[0] = sums[0] + of[0], to[1] = std::max(sums[1], of[1]), to[2] = std::max(sums[2], of[2]);
    double in = to[1], out = to[2];
    for (std::size_t w = 3; w < width_; ++w) {
      to[w] = layer_.rows_add ? sums[w] + of[w] : std::max(sums[w], of[w]);
      if (to[w] == 0) continue;
      if (const std::size_t way = w - 3; way < layer_.in.size())
        in = std::max(in, layer_.in[way].latency + to[w]);
      else
        out = std::max(out, layer_.out[way - layer_.in.size()].latency + to[w]);
    }
    return in + to[0] + out;
  }

  /// Extends the set by those of `candidates`, which are behind its last.
  bool extend(std::span<const std::uint16_t> candidates, Sets& found) {
    const double* const sums = &sums_[set_.size() * width_];
    double* const more = &sums_[(set_.size() + 1) * width_];
    std::vector<std::uint16_t> fit;
    for (const std::uint16_t e : candidates)
      if (with(sums, e, more) <= seconds_) fit.push_back(e);  // what does not fit now fits no larger set
    for (std::size_t i = 0; i < fit.size(); ++i) {
      set_.push_back(fit[i]);
      with(sums, fit[i], more);
      const std::size_t before = found.size();
      if (set_.size() < slots_ && i + 1 < fit.size() && !extend(std::span(fit).subspan(i + 1), found)) return false;
      if (found.size() == before) found.experts.insert(found.experts.end(), set_.begin(), set_.end()), found.first.push_back(static_cast<std::uint32_t>(found.experts.size()));
      set_.pop_back();
      if (found.size() > most_) return false;
    }
    return true;
  }

  const Configurations& layer_;
  double seconds_;
  std::size_t most_, slots_, width_;
  std::vector<double> of_;    // [experts][width]: computing, entering and leaving alone, rows by way
  std::vector<double> sums_;  // [slots + 2][width] of the first experts of `set_`, as many as the index
  std::vector<std::uint16_t> set_;
};

/// Whether experts do not all find room by a time; false where that is not known.
bool refuted(const Configurations& layer, double seconds) {
  const auto experts = static_cast<std::size_t>(layer.compute.rows), ranks = static_cast<std::size_t>(layer.compute.columns);
  std::vector<Sets> sets(ranks);
  std::size_t left = kSets;
  std::vector<std::size_t> company(experts);  // of the largest set with an expert, itself among them
  for (std::size_t r = 0; r < ranks; ++r) {
    if (!Finder(layer, static_cast<std::int64_t>(r), seconds, left).find(sets[r])) return false;
    left -= sets[r].size();
    for (std::size_t i = 0; i < sets[r].size(); ++i)
      for (const std::uint16_t e : sets[r][i]) company[e] = std::max(company[e], sets[r][i].size());
  }
  if (std::ranges::find(company, std::size_t{0}) != company.end()) return true;  // no rank is done with this one
  std::vector<double> weight;
  for (const std::size_t c : company) weight.push_back(1 / static_cast<double>(c));
  std::vector<double> rooms(experts);  // of the heaviest sets, in which an expert has been lately
  for (int round = 0; round < kRounds; ++round) {
    double shares = 0;
    for (double& r : rooms) r *= 0.8;
    for (const Sets& of_rank : sets) {
      double most = 0;
      std::size_t heaviest = of_rank.size();
      for (std::size_t i = 0; i < of_rank.size(); ++i) {
        double sum = 0;
        for (std::uint32_t at = of_rank.first[i]; at < of_rank.first[i + 1]; ++at) sum += weight[of_rank.experts[at]];
        if (sum > most) most = sum, heaviest = i;
      }
      shares += most;
      if (heaviest < of_rank.size())
        for (const std::uint16_t e : of_rank[heaviest]) rooms[e] += 0.2;
    }
    const double all = std::accumulate(weight.begin(), weight.end(), 0.0);
    if (all > shares * (1 + 1e-9)) return true;
    if (round == kHopeful && all < 0.9 * shares) return false;
    const double step = 0.5 / (1 + 0.1 * round);
    for (std::size_t e = 0; e < experts; ++e) weight[e] *= std::exp(step * (1 - std::min(2.0, rooms[e])));
    const double most = std::ranges::max(weight);
    for (double& w : weight) w /= most;
  }
  return false;
}

}  // namespace

double configuration_bound(const Configurations& layer, double known) {
  double below = known;
  for (int i = 0; i < kSteps && refuted(layer, kStep * below); ++i) below *= kStep;
  double above = kStep * below;
  for (int i = 0; i < kBisections; ++i) {
    const double middle = (below + above) / 2;
    (refuted(layer, middle) ? below : above) = middle;
  }
  return below;
}

}  // namespace epsim
