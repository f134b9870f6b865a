#include "sim/network/shared/soonest.h"

namespace epsim {

void Soonest::drop(std::uint32_t flow) {
  for (std::size_t i = 0; i < count_; ++i) {
    if (flow_[i] != flow) continue;
    const double mark = mark_[i];
    --count_;
    flow_[i] = flow_[count_];
    mark_[i] = mark_[count_];
    if (mark == least_) {
      least_ = kNever;
      for (std::size_t k = 0; k < count_; ++k) least_ = std::min(least_, mark_[k]);
    }
    return;
  }
}

void Soonest::add(std::uint32_t flow, double mark) {
  if (mark >= limit_) return;
  if (count_ == kMost) {
    const auto worst = static_cast<std::size_t>(std::max_element(mark_, mark_ + kMost) - mark_);
    limit_ = std::max(mark, mark_[worst]);
    if (mark >= mark_[worst]) return;
    flow_[worst] = flow;
    mark_[worst] = mark;
  } else {
    flow_[count_] = flow;
    mark_[count_++] = mark;
  }
  least_ = std::min(least_, mark);
}

}  // namespace epsim
