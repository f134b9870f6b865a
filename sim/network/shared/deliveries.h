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
    heap_.push_back(a);
    std::push_heap(heap_.begin(), heap_.end(), later);
  }
  /// Seconds; infinity when nothing is on its way.
  double next() const { return heap_.empty() ? std::numeric_limits<double>::infinity() : heap_.front().at; }
  /// Moves everything that is there by `now` to `arrived`.
  void take(double now, std::vector<Network::Arrival>& arrived) {
    while (!heap_.empty() && heap_.front().at <= now) {
      std::pop_heap(heap_.begin(), heap_.end(), later);
      arrived.push_back(heap_.back());
      heap_.pop_back();
    }
  }

 private:
  static bool later(const Network::Arrival& a, const Network::Arrival& b) { return a.at != b.at ? a.at > b.at : a.id > b.id; }
  std::vector<Network::Arrival> heap_;
};

}  // namespace epsim
