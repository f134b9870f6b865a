#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "sim/network/shared/crossings.h"
#include "sim/network/shared/curve.h"
#include "sim/network/shared/flow_batch.h"
#include "sim/network/shared/share_rows.h"
#include "sim/network/shared/soonest.h"
#include "topology/topology.h"

namespace epsim {

/// Flows that share links max-min fairly (Bertsekas and Gallager, "Data Networks", 6.5.2), each in proportion to a weight: rates are exact and change only when a flow begins or ends.
///
/// A link that holds flows back gives each of its own flows one rate for each unit of weight, its *level*; a link's own flows are those that cross no link earlier in the *order* of levels. What a flow
/// has left is kept as a mark on its link's clock, which runs at the level, so that a flow whose rate changes is not touched. When flows end or begin, links are visited in their order from the first one
/// concerned: each finds its level anew from what its other flows take, and a link whose level falls below earlier ones moves in front of them and takes over the flows that it shares with them. This is
/// progressive filling, but its work grows with what changes.
class FairShares {
 public:
  /// With a `tolerance` above 0, what ends within some four times that share of the time since the first flow began is one event, after which rates are found for its middle; and links whose levels differ by
  /// less than a third of that keep their order. Of the finish times of a large all-to-all 99 in 100 are then right to the tolerance (docs/performance.md).
  /// A link into a rank gives the share `incast` of its capacity, by how many flows are under way on it.
  explicit FairShares(const Topology& topology, double tolerance = 0, Curve incast = {});

  /// Says which pairs of ranks will send, ascending, so that flows that begin later need no new structure. Only while no flow is under way.
  void expect(std::vector<RankPair> pairs);
  /// Begins flows of at least one byte each, and leaves the batch empty; no completion before `now` may be pending.
  void share(FlowBatch& batch, double now);
  bool idle() const { return live_ == 0; }
  /// When the next flow ends; infinity when there is none.
  double next_end() const { return next_end_; }
  /// Ends the flows that end at next_end() and shares what they leave. Flows that end within a relative 1e-12, or the tolerance, are one event, each with its own time.
  void end_next(std::vector<FlowEnd>& ended);
  /// The relative error that some 99 of 100 ends so far do not exceed: an estimate, from how long events were and whether links kept an order that was not theirs. 0 without a tolerance.
  double end_error() const { return std::max(ends_ > 0 ? kErrorOfLength * lengths_ / static_cast<double>(ends_) : 0, order_kept_ ? dead_ : 0); }

 private:
  using Number = Crossings::Number;
  static constexpr Number kOpen = Crossings::kNone, kIdle = Crossings::kNone - 1;  // instead of a flow's link
  static constexpr double kNever = std::numeric_limits<double>::infinity();
  static constexpr double kTie = 1e-12;                                            // flows that end within this share of the clock are one event, links within it of the lowest share one step
  static constexpr std::uint32_t kUnordered = 0xffffffff;                          // position of a link that holds nothing back
  static constexpr double kErrorOfLength = 0.3;  // of 99 of 100 ends, over the mean length of an event: so found where the exact times are known

  // A link as the order sees it.
  struct alignas(64) State {
    double capacity = 0;  // bytes/s
    double inverse = 0;   // 1 / weight of its own flows
    double level = 0;     // bytes/s for each unit of weight; infinite where it has no own flows
    double clock = 0;     // bytes for each unit of weight that an own flow has sent since the last filling, at `date`
    double date = 0;      // seconds
    double weight = 0;    // of its own flows
    double least = 0;     // mark of the own flow that ends next
    std::uint32_t own = 0;  // flows
    std::uint32_t position = kUnordered;
  };
  struct Finish {
    std::uint32_t flow;
    double at;
  };

  double weight(std::uint32_t flow) const { return weight_.empty() ? 1 : weights_[weight_[flow]]; }
  bool has_weight(double weight) const;
  std::uint16_t place_of_weight(double weight) const;  // in given_weights_
  void scale_weights();
  template <class Visit>
  void for_each_hop(std::uint32_t flow, Visit visit) const;
  template <class Visit>
  void for_each_own(Number q, Visit visit) const;

  bool place(const FlowBatch& batch);
  void rebuild(FlowBatch& batch, double now);
  void settle(double now);
  void fill(double now);
  void count_rows();
  std::uint32_t begin(std::uint32_t flow, double now);
  double window() const;
  void collect_ends(double now, double window);

  void sweep(std::uint32_t from, double now);
  std::uint32_t take_over(std::uint32_t position, Number q, double level, double now);
  void find_shared(Number from, Number to);
  void move_flow(std::uint32_t flow, Number from, Number to, double level);
  void set_level(Number q, double level, double now);
  double capacity(Number q) const;
  void count_live(std::uint32_t flow, int by);
  void put_last(Number q);
  void unorder(std::uint32_t position);
  Number first_overloaded() const;
  void sync(State& s, double now) {
    s.clock += s.level * (now - s.date);
    s.date = now;
  }
  void find_next_end();
  void renew_end(Number q, double now);
  static double end_of(const State& s, double now) { return std::max(now, s.date + (s.least - s.clock) / s.level); }

  const Topology& topology_;
  double window_, dead_;
  Curve incast_;
  std::vector<RankPair> expected_;
  std::vector<std::uint32_t> placed_;     // [flows of the batch that begins] the flow it becomes
  Crossings crossings_;                   // of all flows below, ascending by pair
  std::vector<std::int64_t> id_;          // [flows] the caller's
  std::vector<double> mark_;              // [flows] where on its link's clock it ends, for each unit of weight
  std::vector<Number> link_;              // [flows] the link that holds it back, kOpen, or kIdle where no flow of this pair is under way
  std::vector<std::uint16_t> weight_;     // [flows] which of weights_; empty where there is only one
  std::vector<double> given_weights_, weights_;  // as given, ascending; and so scaled that they are whole numbers where that can be
  std::size_t live_ = 0;

  std::vector<State> state_;              // [links]
  std::vector<std::uint32_t> live_on_;    // [links] flows under way on a link into a rank; empty where there is no incast
  Lanes sum_;                             // [links] bytes/s of flows that other links hold back
  Lanes end_;                             // [links] when the next own flow ends
  std::vector<std::uint64_t> loose_;      // [links] bits: has no position in the order
  std::vector<Soonest> soon_;             // [links]
  std::vector<Number> order_;             // links with own flows, by level
  ShareRows rows_;
  bool rows_laid_out_ = false, rows_counted_ = false;  // for the links as they are; for the flows under way
  bool just_filled_ = false;              // nothing has ended since
  double next_end_;
  double epoch_ = 0;                      // seconds; when the network was last idle
  std::size_t begun_ = 0;                 // flows since then
  double lengths_ = 0;                    // of the event that each flow ended in, as a share of its time, summed over flows
  std::uint64_t ends_ = 0;                // flows
  bool order_kept_ = false;               // for the tolerance alone

  std::vector<Number> passed_;            // scratch, as all that follows
  struct Move {
    std::uint32_t flow;
    Number from;
  };
  std::vector<Move> moves_;
  std::vector<std::uint32_t> places_;
  std::vector<Finish> finishes_;
};

/// Calls visit(link, load) for the links of a flow: the part of the link's capacity that each unit of its rate for each unit of weight takes.
template <class Visit>
void FairShares::for_each_hop(std::uint32_t flow, Visit visit) const {
  const double w = weight(flow);
  const Number *const path = crossings_.path(flow), *const end = path + crossings_.hops();
  const double* const shares = crossings_.shares(flow);
  for (const Number* p = path; p != end && *p != Crossings::kNone; ++p) visit(*p, shares ? w * shares[p - path] : w);
}

template <class Visit>
void FairShares::for_each_own(Number q, Visit visit) const {
  crossings_.for_each(q, [&](std::uint32_t f) {
    if (link_[f] == q) visit(f);
  });
}

}  // namespace epsim
