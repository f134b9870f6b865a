// The flows and links that FairShares knows: which there are, and who has which place.
#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "sim/network/shared/fair_shares.h"

namespace epsim {

void FairShares::expect(std::vector<RankPair> pairs) {
  ensure(live_ == 0, "flows are expected before they begin");
  expected_ = std::move(pairs);
  crossings_ = {};
  link_.clear();
}

std::uint16_t FairShares::place_of_weight(double weight) const { return static_cast<std::uint16_t>(std::lower_bound(given_weights_.begin(), given_weights_.end(), weight) - given_weights_.begin()); }
bool FairShares::has_weight(double weight) const { return std::binary_search(given_weights_.begin(), given_weights_.end(), weight); }

/// Finds for each flow of a batch one of the structure that is idle, and writes down there what it is. False where there are not enough.
bool FairShares::place(const FlowBatch& batch) {
  const std::span<const RankPair> pairs = crossings_.pairs();
  placed_.clear();
  std::size_t next = 0;  // flows mostly come in order
  double last = 0;       // weight
  const auto give_up = [&] {
    for (const std::uint32_t f : placed_) link_[f] = kIdle;
    return false;
  };
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const RankPair pair = batch.pairs[i];
    if (batch.weight(i) != last && !has_weight(batch.weight(i))) return give_up();
    last = batch.weight(i);
    if (next >= pairs.size() || pairs[next] != pair || link_[next] != kIdle) {
      next = static_cast<std::size_t>(std::lower_bound(pairs.begin(), pairs.end(), pair) - pairs.begin());
      while (next < pairs.size() && pairs[next] == pair && link_[next] != kIdle) ++next;
      if (next == pairs.size() || pairs[next] != pair) return give_up();
    }
    link_[next] = kOpen;
    placed_.push_back(static_cast<std::uint32_t>(next++));
  }
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const std::uint32_t f = placed_[i];
    if (!weight_.empty()) weight_[f] = place_of_weight(batch.weight(i));
    id_[f] = batch.ids[i];
    mark_[f] = batch.bytes[i] / weight(f);
    link_[f] = kIdle;
  }
  return true;
}

/// A new structure for what is under way, what begins and what is expected. May change the batch.
void FairShares::rebuild(FlowBatch& batch, double now) {
  settle(now);
  const std::span<const RankPair> before = crossings_.pairs();
  if (live_ > 0 && batch.weights.empty()) batch.weights.assign(batch.size(), 1);
  for (std::uint32_t f = 0; f < link_.size(); ++f)
    if (link_[f] == kOpen) batch.add(id_[f], before[f], mark_[f] * weight(f), weight_.empty() ? given_weights_.front() : given_weights_[weight_[f]]);

  given_weights_ = batch.weights.empty() ? std::vector<double>{1} : batch.weights;
  std::sort(given_weights_.begin(), given_weights_.end());
  given_weights_.erase(std::unique(given_weights_.begin(), given_weights_.end()), given_weights_.end());
  scale_weights();
  live_ = batch.size();

  const bool sorted = std::is_sorted(batch.pairs.begin(), batch.pairs.end());
  if (sorted && expected_.empty() && given_weights_.size() == 1) {
    crossings_ = Crossings(topology_, std::move(batch.pairs), !incast_.flat());
    id_ = std::move(batch.ids);
    mark_ = std::move(batch.bytes);
    weight_.clear();
    link_.assign(live_, kOpen);
    for (double& m : mark_) m /= weights_.front();
  } else {
    std::vector<RankPair> begun = batch.pairs, pairs;
    if (!sorted) std::sort(begun.begin(), begun.end());
    pairs.reserve(std::max(begun.size(), expected_.size()));
    auto expected = expected_.begin();
    for (const RankPair& p : begun) {
      while (expected != expected_.end() && *expected < p) pairs.push_back(*expected++);
      if (expected != expected_.end() && *expected == p) ++expected;
      pairs.push_back(p);
    }
    pairs.insert(pairs.end(), expected, expected_.end());
    const std::size_t flows = pairs.size();
    crossings_ = Crossings(topology_, std::move(pairs), !incast_.flat());
    link_.assign(flows, kIdle);
    id_.resize(flows);
    mark_.resize(flows);
    weight_.assign(given_weights_.size() == 1 ? 0 : flows, 0);
    ensure(place(batch), "the structure has a flow for each that begins");
    for (const std::uint32_t f : placed_) link_[f] = kOpen;
  }
  rows_laid_out_ = rows_counted_ = false;
  fill(now);
}

/// Whole multiples of the least weight, or of a fraction of it, take a byte in the rows.
void FairShares::scale_weights() {
  constexpr int kMostParts = 60;
  ensure(given_weights_.size() <= 65535 && given_weights_.front() > 0, "there are at most 65,535 different weights, all above 0");
  weights_ = given_weights_;
  for (double& w : weights_) w /= given_weights_.front();
  for (int parts = 1; parts <= kMostParts; ++parts) {
    const auto whole = [&](double w) { return std::abs(w * parts - std::round(w * parts)) <= 1e-13 * w * parts; };
    if (!std::all_of(weights_.begin(), weights_.end(), whole)) continue;
    for (double& w : weights_) w = std::round(w * parts);
    return;
  }
}

}  // namespace epsim
