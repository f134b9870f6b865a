#pragma once
#include <compare>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/catalog.h"
#include "topology/topology.h"

namespace epsim {

/// A sender and a receiver.
struct RankPair {
  std::int32_t source = 0, destination = 0;
  friend auto operator<=>(const RankPair&, const RankPair&) = default;
};

/// Bytes that a rank sends to another at once. `id` is the caller's.
struct Flow {
  std::int64_t id = 0;
  Rank source, destination;
  double bytes = 0;           ///< above 0
  std::int64_t messages = 1;  ///< equal messages that the bytes are sent as; matters where messages cost something
  bool one_sided = false;     ///< written into the receiver's memory, which takes no part in it
};

/// Carries flows over a topology. It has a state and a double-precision clock in seconds; it knows nothing of who calls it.
class Network {
 public:
  struct Arrival {
    std::int64_t id;
    double at;  ///< seconds
  };
  virtual ~Network() = default;
  /// Tells which pairs of ranks will send, ascending and each once, so that the network can prepare for them; before the first start. Others may send as well.
  virtual void expect(const std::vector<RankPair>&) {}
  /// Starts flows at `now`, which is never before the last time given to `start` or `advance`. What is started at one time in several calls is as if started in one.
  virtual void start(const std::vector<Flow>& flows, double now) = 0;
  /// When the state changes next (an arrival, or a change on the way to one); infinity when nothing is under way.
  virtual double next_event() = 0;
  /// Moves the clock to `now` (at most next_event()) and appends what has arrived by then, or some of it: the rest is an event at `now`.
  virtual void advance(double now, std::vector<Arrival>& arrived) = 0;
  /// The relative error that some 99 of 100 arrival times so far do not exceed, as far as the model was inexact for speed: its own estimate, 0 where it was exact.
  virtual double arrival_error() const { return 0; }
};

/// A network model by name: makes a Network for a topology.
struct NetworkModel {
  std::string_view summary;
  std::function<std::unique_ptr<Network>(const Topology&)> make;
};

using NetworkCatalog = Catalog<NetworkModel>;
NetworkCatalog builtin_networks();

}  // namespace epsim
