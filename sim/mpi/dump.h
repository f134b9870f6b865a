#pragma once
#include <string>
#include <vector>

#include "sim/experiment.h"
#include "sim/moe/expert_rows.h"

namespace epsim {

/// The gradients of sum(y * r) of an executed layer.
struct ExecutedGradients {
  PlanGradients of_plan;    ///< x through the gate as well, where it has a gradient
  std::vector<float> gate;  ///< [h,G]; empty: there is none
  std::vector<float> r;     ///< [T,h]
};

/// Writes `folder`/dump.npz with all that an outsider needs to recompute an executed layer: x [T,h], gate [h,G] (where the source has a real gate; G counts the experts that compute nothing, too), w1 w3 [E,h,f], w2 [E,f,h]
/// (y = (silu(x w1) * (x w3)) w2), shared_w1 shared_w3 shared_w2 (where the model has a shared expert), constant constant_gate (where the router has constant experts), expert_ids weights kept slot_of_copy [T,k], home [T], shared_rank [T] (where some token's shared expert is computed on another rank), physical_to_logical [P], y [T,h];
/// and of `gradients`, unless null, r dx [T,h], d_weight [T,k], dw1 dw3 dw2 and dshared_w1 dshared_w3 dshared_w2, dconstant dconstant_gate and dgate in the shapes of what they are gradients of.
/// The file appears whole or not at all. Throws InputError where the folder cannot be written.
void write_dump(const std::string& folder, const Experiment& experiment, const Plan& plan, const std::vector<float>& x, const std::vector<float>& y, const ExecutedGradients* gradients);

/// Throws InputError now if `folder` cannot be made or written, so that nothing is computed for nothing.
void check_dump_folder(const std::string& folder);

}  // namespace epsim
