#pragma once
#include <cstdint>
#include <vector>

#include "sim/network/shared/crossings.h"
#include "sim/network/shared/share_rows.h"
#include "topology/topology.h"

namespace epsim {

/// Flows that share links max-min fairly (Bertsekas and Gallager, "Data Networks", 6.5.2): rates are exact and change only when a flow begins or ends.
///
/// A link that holds flows back gives each of its own flows one rate, its *level*; a link's own flows are those that cross no link earlier in the *order* of levels. A flow's remaining bytes are kept as a
/// mark on its link's virtual clock, which runs at the level, so that a flow whose rate changes is not touched. When flows end or begin, links are visited in their order from the first one concerned:
/// each finds its level anew from what its other flows take, and a link whose level falls below earlier ones moves in front of them and takes over the flows that it shares with them. This is progressive
/// filling, but its work grows with what changes.
class FairShares {
 public:
  explicit FairShares(const Topology& topology);

  struct Ended {
    std::int64_t flow;  ///< the caller's id
    Rank source, destination;
    double at;          ///< seconds; the moment its last byte leaves
  };

  /// Adds a flow; it begins with the next `share`.
  void add(std::int64_t id, Rank source, Rank destination, double bytes, std::uint16_t weight = 1);
  /// Begins what was added; no completion before `now` may be pending.
  void share(double now);
  /// When the next flow ends; infinity when there is none.
  double next_end() const { return next_end_; }
  /// Ends the flows that end at next_end() and shares what they leave. Flows that end within a relative 1e-12 are one event, each with its own time.
  void end_next(std::vector<Ended>& ended);

 private:
  using Number = Crossings::Number;
  static constexpr Number kOpen = Crossings::kNone, kEnded = Crossings::kNone - 1;  // instead of a flow's link
  static constexpr std::uint32_t kUnordered = 0xffffffff;                           // position of a link that holds nothing back
  static constexpr std::size_t kSoon = 16;

  // A link as the order sees it.
  struct alignas(64) State {
    double capacity = 0;   // bytes/s
    double inverse = 0;    // 1 / weight of its own flows
    double level = 0;      // bytes/s for each unit of weight; infinite where it has no own flows
    double clock = 0;      // bytes for each unit of weight that its own flows have sent since the structure was built, at `date`
    double date = 0;       // seconds
    double weight = 0;     // of its own flows
    std::uint32_t own = 0;       // flows
    std::uint32_t position = kUnordered;
  };
  // Own flows of a link that end soonest: all with a mark below `limit` are among them.
  struct Soon {
    double limit = 0, least = 0;
    std::uint32_t count = 0;
    std::uint32_t flow[kSoon];
    double mark[kSoon];
  };

  double weight(std::uint32_t flow) const { return weight_.empty() ? 1 : weight_[flow]; }
  void rebuild(double now);
  void fill(double now);
  void build_rows();
  void sweep(std::uint32_t from, double now);
  std::uint32_t take_over(std::uint32_t position, Number q, double level, double now);
  void move_flow(std::uint32_t flow, Number from, Number to, double level);
  void set_level(Number q, double level, double now);
  void unorder(std::uint32_t position);
  void place(std::uint32_t position) { state_[order_[position]].position = position; }
  void sync(State& s, double now) {
    s.clock += s.level * (now - s.date);
    s.date = now;
  }
  void renew_end(Number q, double now);
  void refill(Number q);
  void drop_soon(Number q, std::uint32_t flow);
  void add_soon(Number q, std::uint32_t flow);
  template <class Visit>
  void for_each_own(Number q, Visit visit) const;
  template <class Visit>
  void for_each_shared(Number held_by, Number crossing, Visit visit);

  const Topology& topology_;
  std::vector<std::int64_t> id_;          // [flows] the caller's
  std::vector<Crossings::Pair> pair_;     // [flows]
  std::vector<double> mark_;              // [flows] where on its link's clock it ends; bytes before it is shared
  std::vector<std::uint16_t> weight_;     // [flows]; empty: all 1
  std::vector<Number> link_;              // [flows] the link that holds it back, kOpen or kEnded
  std::size_t staged_ = 0;                // flows from here on have not begun
  std::size_t live_ = 0;
  Crossings crossings_;
  bool has_rows_ = false;
  ShareRows rows_;
  std::vector<State> state_;              // [links]
  Lanes sum_;                             // [links] bytes/s of flows that other links hold back
  Lanes end_;                             // [links] when the next own flow ends
  std::vector<Soon> soon_;                // [links]
  std::vector<Number> order_;             // links with own flows, by level
  std::vector<Number> passed_;            // scratch
  std::vector<std::uint32_t> shared_;     // scratch
  struct Finish {
    std::uint32_t flow;
    double at;
  };
  std::vector<Finish> finishes_;          // scratch
  double next_end_;
};

}  // namespace epsim
