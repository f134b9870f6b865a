#pragma once
#include <cstdint>
#include <vector>

#include "topology/topology.h"

namespace epsim {

/// Flows that share links max-min fairly (Bertsekas and Gallager, "Data Networks", 6.5.2, progressive filling): the rates are exact and change only when a flow begins or ends.
/// Shares are refilled at each completion, but only from the first level that the completed flow took part in: the levels below it cannot change.
class FairShares {
 public:
  explicit FairShares(const Topology& topology);

  struct Ended {
    std::int64_t flow;  ///< the caller's id
    Rank source, destination;
    double at;          ///< seconds; the moment its last byte leaves
  };

  /// Adds flows at `now`; no completion before `now` may be pending.
  void add(std::int64_t id, Rank source, Rank destination, double bytes) {
    flows_.push_back({id, source, destination});
    remaining_.push_back(bytes);
  }
  /// Shares the links anew among all flows; call it once after a batch of `add`.
  void share(double now);
  /// When the next flow ends; infinity when there is none.
  double next_end() const { return next_end_; }
  /// Ends the flows that end at next_end() and shares what they leave. Flows that end within a relative 1e-12 are one event, each with its own time.
  void end_next(std::vector<Ended>& ended);

 private:
  struct Live {
    std::int64_t id;
    Rank source, destination;
  };
  // Flows that a link holds to one rate. Levels ascend; their flows lie one after the other in filled_.
  struct Level {
    double rate, date, first_end;
    std::uint32_t first;
  };
  static constexpr std::int32_t kOpen = -1, kEnded = -2;  // instead of the number of a flow's level

  void settle(double now);           // brings the remaining bytes of all flows to `now` and forgets ended flows
  void find_binding_links();         // fills link_of_, paths and lists
  void refill(std::size_t level, double now);
  void open_from(std::size_t level, double now);
  std::size_t lowest_share() const;
  std::size_t count_path(std::uint32_t flow, std::size_t touches);  // adds a flow to count_; gives how many links of touched_ are in use
  std::size_t end_of(std::size_t level) const { return level + 1 < levels_.size() ? levels_[level + 1].first : filled_count_; }

  const Topology& topology_;
  std::vector<Live> flows_;
  std::vector<std::int32_t> level_of_;         // [flows]
  std::vector<double> remaining_;              // [flows] bytes left at the date of the flow's level
  std::size_t hops_ = 0;                       // most links of a path that may bind
  std::vector<std::uint32_t> path_;            // [flows][hops_] links that may bind, renumbered; short paths end in a link of endless capacity, the last
  std::vector<std::uint32_t> list_first_, list_end_, list_;  // flows of each link; ended ones are swept out in passing
  std::vector<double> capacity_, used_, share_;   // [links]; share_ is padded with infinity to whole vectors
  std::vector<std::uint32_t> open_, count_;       // [links] flows without a level; scratch
  std::vector<std::uint32_t> touched_;            // links with count_ > 0, scratch
  std::vector<Level> levels_;
  std::vector<std::uint32_t> filled_;             // the first filled_count_: flows in the order they were given a level
  std::size_t filled_count_ = 0;
  std::size_t live_ = 0;
  int refills_ = 0;
  double next_end_;
};

}  // namespace epsim
