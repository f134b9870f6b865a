#pragma once
#include <string>
#include <vector>

#include "sim/experiment.h"

namespace epsim {

/// Writes `folder`/dump.npz with all that an outsider needs to recompute an executed layer: x [T,h], gate [h,E] (where the source has a real gate), w1 w3 [E,h,f], w2 [E,f,h]
/// (y = (silu(x w1) * (x w3)) w2), shared_w1 shared_w3 shared_w2 (where the model has a shared expert), expert_ids weights kept slot_of_copy [T,k], home [T], physical_to_logical [P], y [T,h].
/// The file appears whole or not at all. Throws InputError where the folder cannot be written.
void write_dump(const std::string& folder, const Experiment& experiment, const Plan& plan, const std::vector<float>& x, const std::vector<float>& y);

/// Throws InputError now if `folder` cannot be made or written, so that nothing is computed for nothing.
void check_dump_folder(const std::string& folder);

}  // namespace epsim
