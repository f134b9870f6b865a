#pragma once
#include <functional>
#include <vector>

#include "policies/schedule.h"
#include "sim/moe/expert.h"

namespace epsim {

/// The layer's result computed serially, from the plan alone: no exchange, no buffers.
struct Reference {
  std::vector<float> y;        ///< [T][hidden], each token's copies added by the exchange's tree
  std::vector<float> y_plain;  ///< [T][hidden], added in plain choice order
};

/// `tree` gives the group keys of a home rank's copy on a slot, and `by_key` the order of groups (Exchange::tree, tree_by_key); `load` must make `experts` hold an expert, which is removed again when its rows are done, so that memory holds one at a time.
Reference reference(const Plan& plan, const std::function<std::vector<std::int32_t>(Rank home, Slot)>& tree, bool by_key, bool shared_expert, const std::vector<float>& x, ExpertBank& experts,
                    const std::function<void(int expert)>& load);

}  // namespace epsim
