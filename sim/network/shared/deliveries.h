#pragma once
#include <algorithm>
#include <limits>
#include <vector>

#include "sim/network/network.h"

namespace epsim {

/// Messages whose arrival time is settled, earliest first; of equal times the lowest id first.
class Deliveries {
 public:
  void add(Network::Arrival a) {
    // Flows mostly end in the order in which they arrive, and then a queue does.
    if (queue_.empty() || !later(queue_.back(), a)) {
      queue_.push_back(a);
    } else {
      heap_.push_back(a);
      std::push_heap(heap_.begin(), heap_.end(), later);
    }
  }
  /// Seconds; infinity when nothing is on its way.
  double next() const { return std::min(first_ < queue_.size() ? queue_[first_].at : kNever, heap_.empty() ? kNever : heap_.front().at); }
  /// Moves everything that is there by `now` to `arrived`.
  void take(double now, std::vector<Network::Arrival>& arrived) {
    while (next() <= now) {
      if (heap_.empty() || (first_ < queue_.size() && later(heap_.front(), queue_[first_]))) {
        arrived.push_back(queue_[first_++]);
      } else {
        std::pop_heap(heap_.begin(), heap_.end(), later);
        arrived.push_back(heap_.back());
        heap_.pop_back();
      }
    }
    if (first_ == queue_.size()) {
      queue_.clear();
      first_ = 0;
    } else if (first_ > queue_.size() / 2) {
      queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(first_));
      first_ = 0;
    }
  }

 private:
  static constexpr double kNever = std::numeric_limits<double>::infinity();
  static bool later(const Network::Arrival& a, const Network::Arrival& b) { return a.at != b.at ? a.at > b.at : a.id > b.id; }
  std::vector<Network::Arrival> queue_;  // ascending, from first_ on
  std::size_t first_ = 0;
  std::vector<Network::Arrival> heap_;   // what came out of order
};

}  // namespace epsim
