#include <algorithm>

#include "sim/network/network.h"
#include "sim/network/shared/deliveries.h"
#include "sim/network/shared/fair_shares.h"

namespace epsim::parts_network {
namespace {

class FairNetwork : public Network {
 public:
  explicit FairNetwork(const Topology& topology) : topology_(topology), shares_(topology) {}

  void start(const std::vector<Flow>& flows, double now) override {
    settle(now);
    for (const Flow& f : flows) shares_.add(f.id, f.source, f.destination, f.bytes);
    shares_.share(now);
  }
  double next_event() const override { return std::min(deliveries_.next(), shares_.next_end()); }
  void advance(double now, std::vector<Arrival>& arrived) override {
    settle(now);
    deliveries_.take(now, arrived);
  }

 private:
  void settle(double now) {
    while (shares_.next_end() <= now) {
      ended_.clear();
      shares_.end_next(ended_);
      for (const FairShares::Ended& e : ended_) deliveries_.add({e.flow, e.at + topology_.latency(e.source, e.destination).seconds()});
    }
  }

  const Topology& topology_;
  FairShares shares_;
  Deliveries deliveries_;
  std::vector<FairShares::Ended> ended_;
};

}  // namespace

/// Max-min fair sharing of every link among the flows that cross it, with equal weights; a message arrives its path latency after its last byte has left.
/// Exact: rates change at once when a flow begins or ends. Congestion control, packets, losses and buffers are not modelled.
NetworkModel fair(Params&) {
  return {"max-min fair sharing of each link among the flows that cross it, plus path latency; packets, buffers and congestion control are not modelled",
          [](const Topology& topology) { return std::make_unique<FairNetwork>(topology); }};
}

}  // namespace epsim::parts_network
