#pragma once
#include <functional>
#include <vector>

#include "policies/schedule.h"
#include "sim/moe/expert_rows.h"
#include "sim/moe/planned.h"

namespace epsim {

/// The layer's result computed serially, from the plan alone: no exchange, no buffers. What experts give that compute nothing is added last.
struct Reference {
  std::vector<float> y;        ///< [T][hidden], each token's copies added by the exchange's tree
  std::vector<float> y_plain;  ///< [T][hidden], added in plain choice order
};

/// The order in which an exchange adds a token's copies, for one plan.
struct AddingOrder {
  std::function<std::vector<std::int32_t>(Rank home, Rank at)> keys;  ///< the group keys of a home rank's copy on a rank
  bool by_key = false;  ///< groups are added in order of their keys
};
/// All three must outlive what it gives.
AddingOrder adding_order(const Exchange& exchange, const Plan& plan, const Topology& topology);

/// `load` must make `experts` hold an expert, which is removed again when its rows are done, so that memory holds one at a time.
Reference reference(const Plan& plan, const AddingOrder& order, bool shared_expert, const std::vector<float>& x, ExpertBank& experts, const std::function<void(int expert)>& load, const IdleBank& idle = {});

/// The gradients of sum(y * r), `r` being [T][hidden], computed serially from the plan alone; `load` packs for both passes.
PlanGradients reference_backward(const Plan& plan, const AddingOrder& order, bool shared_expert, const std::vector<float>& x, const std::vector<float>& r, ExpertBank& experts,
                                 const std::function<void(int expert)>& load, const IdleBank& idle = {});

}  // namespace epsim
