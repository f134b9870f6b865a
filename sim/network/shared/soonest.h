#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace epsim {

/// The flows of a link that end soonest: all with a mark below limit() are among them. An end then needs no look at the link's other flows but once in a while.
class Soonest {
 public:
  void clear() {
    count_ = 0;
    limit_ = least_ = kNever;
  }
  bool empty() const { return count_ == 0; }
  double limit() const { return limit_; }
  double least() const { return least_; }  ///< mark; infinite where it is empty
  template <class Visit>
  void for_each(Visit visit) const {
    for (std::size_t i = 0; i < count_; ++i) visit(flow_[i], mark_[i]);
  }
  /// A flow joins the link's; it is kept where its mark says so.
  void add(std::uint32_t flow, double mark);
  /// A flow leaves the link, known here or not.
  void drop(std::uint32_t flow);
  /// Takes the least of all flows of the link: flows(visit) calls visit(flow, mark) for each.
  template <class Flows>
  void refill(Flows flows);

 private:
  static constexpr double kNever = std::numeric_limits<double>::infinity();
  static constexpr std::size_t kMost = 16, kTake = kMost - 4;

  double limit_ = kNever, least_ = kNever;
  std::uint32_t count_ = 0;
  std::uint32_t flow_[kMost];
  double mark_[kMost];
};

template <class Flows>
void Soonest::refill(Flows flows) {
  // The kTake least marks and the next one, which is the limit.
  clear();
  flows([&](std::uint32_t flow, double mark) {
    if (mark >= limit_) return;
    if (count_ < kTake) {
      flow_[count_] = flow;
      mark_[count_++] = mark;
      return;
    }
    // One is too many: the greatest is left out and becomes the limit.
    std::size_t worst = kTake;
    double worst_mark = mark;
    for (std::size_t i = 0; i < kTake; ++i)
      if (mark_[i] > worst_mark) worst = i, worst_mark = mark_[i];
    limit_ = worst_mark;
    if (worst < kTake) flow_[worst] = flow, mark_[worst] = mark;
  });
  for (std::size_t i = 0; i < count_; ++i) least_ = std::min(least_, mark_[i]);
}

}  // namespace epsim
