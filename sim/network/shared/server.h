#pragma once
#include <algorithm>

namespace epsim {

/// Does pieces of work one at a time, in the order they are given, and never rests while there is some: a rank's processor, or one direction of its NIC. Times are seconds.
class Server {
 public:
  /// Takes `count` equal pieces that come evenly from `first` to `last` and gives when the last is done. Calls come with `last` in rising order; pieces of earlier calls may still be
  /// in the queue. Exact for single pieces and for pieces that come at once. Of pieces that come over a while and cross those of other calls two things hold that
  /// together are the estimate: the last comes after all that came last before it, and all work of a busy time fits between its begin and its end.
  double serve(double first, double last, double count, double each) {
    if (begun_ + work_ <= first) begun_ = first, work_ = 0;
    begun_ = std::min(begun_, first);
    work_ += count * each;
    const double at_last = first == last ? count : 1;
    return free_ = std::max(std::max(last, free_) + at_last * each, begun_ + work_);
  }
  /// When all that was taken is done.
  double free() const { return free_; }

 private:
  double free_ = 0, begun_ = 0, work_ = 0;  // begun_: of the busy time, whose work is work_
};

}  // namespace epsim
