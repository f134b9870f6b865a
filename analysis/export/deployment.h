#pragma once
#include <span>
#include <string>
#include <vector>

#include "policies/placement.h"

namespace epsim {

/// Placements of some layers of a model, to be written for those who deploy them.
struct Deployment {
  std::vector<int> layers;             ///< model layer index of each placement, ascending
  std::vector<Placement> placements;
  int experts = 0;
};

/// A form that other programs read. `write` throws InputError at `at` for placements that the form cannot carry, saying which and why.
struct DeploymentFormat {
  std::string_view name, summary;
  std::string (*write)(const Deployment& deployment, const Location& at);
};

/// All of them, by name.
std::span<const DeploymentFormat> deployment_formats();

/// SGLang's --init-expert-location: JSON with `physical_to_logical_map` [layer][slot] for all layers of the model from 0; layers that were not placed (dense ones) hold expert s mod E in slot s.
/// Equally many slots on every rank and in every layer.
std::string to_sglang_location(const Deployment& deployment, const Location& at);
/// vllm-ascend's expert map: JSON of `device_expert` by layer and device; layers are numbered among those that have experts. Equally many slots on every rank and in every layer.
std::string to_ascend_expert_map(const Deployment& deployment, const Location& at);
/// TensorRT-LLM's moe_load_balancer.yaml: `num_slots`, `initial_global_assignments`, and `layer_updates_per_iter: 0` (static). Equally many slots on every rank and in every layer.
std::string to_tensorrt_balancer(const Deployment& deployment, const Location& at);
/// EPLB's own arrays, .npz: `phy2log` [L, P], `log2phy` [L, E, X] padded with -1, `logcnt` [L, E], and `layers` [L]. Equally many slots in every layer; ranks hold equally many, for EPLB has no array that would say otherwise.
std::string to_eplb_arrays(const Deployment& deployment, const Location& at);

}  // namespace epsim
