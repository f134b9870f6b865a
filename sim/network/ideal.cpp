#include <algorithm>

#include "sim/network/network.h"
#include "sim/network/shared/deliveries.h"
#include "sim/network/shared/message_costs.h"

namespace epsim::parts_network {
namespace {

/// Every link is a queue of its own that never idles while it has bytes: what starts at one instant is one batch, and a batch has passed a link when the link has carried all that was
/// put on it up to then. A message has left when the slowest link of its path has passed its batch, so a phase takes what its busiest link takes; O(path) a message.
class IdealNetwork : public Network {
 public:
  explicit IdealNetwork(const Topology& topology) : topology_(topology), drained_(topology.links().size()) {}

  void start(const std::vector<Flow>& flows, double now) override {
    const std::span<const Link> links = topology_.links();
    for (const Flow& f : flows)
      topology_.for_each_share(f.source, f.destination, [&](std::int32_t l, double share) { drained_[l] = std::max(drained_[l], now) + f.bytes * share / links[l].bandwidth; });
    for (const Flow& f : flows) {
      double left = now;
      topology_.for_each_link(f.source, f.destination, [&](std::int32_t l) { left = std::max(left, drained_[l]); });
      deliveries_.add({f.id, left + topology_.latency(f.source, f.destination).seconds()});
    }
  }
  double next_event() override { return deliveries_.next(); }
  void advance(double now, std::vector<Arrival>& arrived) override { deliveries_.take(now, arrived); }

 private:
  const Topology& topology_;
  std::vector<double> drained_;  // [links] when the link has carried all that was put on it
  Deliveries deliveries_;
};

}  // namespace

/// A network whose links do not hold each other back: a message arrives its path latency after the busiest link of its path has carried, at full rate and in order of start, all bytes put on it so far.
/// Never faster than the bytes on any one link (the ports of a rank are links) nor than the uncontended time; how shares of one link depend on other links is not modelled (`fair` does).
NetworkModel ideal(Params& p) {
  const MessageCosts costs = read_message_costs(p);
  return with_message_costs(costs, {"every link carries its bytes at full rate by itself (ports included), plus path latency; how flows hold each other back across links is not modelled",
                                    [](const Topology& topology) { return std::make_unique<IdealNetwork>(topology); }});
}

}  // namespace epsim::parts_network
