#include "sim/timeline.h"

#include <algorithm>

#include "base/check.h"

namespace epsim {

Timeline::Stages Timeline::stages(const Schedule& schedule) const {
  ensure(done.size() == schedule.phases.size(), "a timeline belongs to its schedule");
  Time dispatched, computed;
  for (std::size_t i = 0; i < done.size(); ++i)
    for (const Time t : done[i]) {
      if (schedule.phases[i].stage == Stage::dispatch) dispatched = std::max(dispatched, t);
      if (schedule.phases[i].stage != Stage::combine) computed = std::max(computed, t);
    }
  return {dispatched, computed - dispatched, end - computed};
}

}  // namespace epsim
