#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "sim/network/shared/curve.h"
#include "sim/network/shared/flow_batch.h"
#include "sim/network/shared/paths.h"
#include "topology/topology.h"

namespace epsim {

/// Max-min fair sharing in closed form, for flows that begin together on an idle network and never change each other's rates. The link of a flow's path with the least capacity for each of its flows holds
/// the flow back. Where every flow that crosses such a link is held back by it, and all of them have as many bytes, they all have that share of it and end together; and since what holds others back is not
/// among what they leave, nobody is faster afterwards. All-to-alls of equal sizes are like that, and most whose sizes depend on the destination only. A flow takes some hundred and fifty instructions, and 16 to 20 bytes.
class SeparateShares {
 public:
  /// A link into a rank gives the share `incast` of its capacity, by how many flows are under way on it: with fewer a flow's share is never less.
  explicit SeparateShares(const Topology& topology, Curve incast = {}) : topology_(topology), incast_(std::move(incast)) {}

  /// Begins flows, and leaves the batch empty; or finds that they do not keep apart, and leaves it as it was. Only while none is under way.
  bool begin(FlowBatch& batch, double now);
  bool idle() const { return groups_.empty(); }
  /// When the next flow ends; infinity when there is none.
  double next_end() const { return groups_.empty() ? std::numeric_limits<double>::infinity() : groups_[current_].end; }
  /// Ends some flows that end at next_end() and calls visit(FlowEnd) for each. Not all at once: so what is done with them finds them in the processor's cache.
  template <class Visit>
  void end_next(Visit&& visit) {
    constexpr std::size_t kMost = 4096;
    const Group& group = groups_[current_];
    for (const std::size_t end = std::min(group.last, next_ + kMost); next_ < end; ++next_) {
      const std::size_t f = flow_at(next_);
      visit(FlowEnd{ids_[f], pairs_[f], group.end});
    }
    if (next_ == group.last && ++current_ == groups_.size()) clear();
  }
  /// Stops, and adds to a batch what every flow has left.
  void leave(double now, FlowBatch& batch);

 private:
  /// Flows that end together.
  struct Group {
    double end = 0;        // seconds
    double rate = 0;       // bytes/s of each
    std::size_t last = 0;  // flows of this group and all before it
  };
  std::size_t flow_at(std::size_t place) const { return order_.empty() ? place : order_[place]; }
  void clear();

  const Topology& topology_;
  Curve incast_;
  std::vector<std::int64_t> ids_;     // [flows]
  std::vector<RankPair> pairs_;       // [flows]
  std::vector<std::uint32_t> order_;  // flows by group; empty where there is one group
  std::vector<Group> groups_;         // in the order in which they end
  std::size_t current_ = 0, next_ = 0;  // group; place in the order
};

}  // namespace epsim
