#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"

namespace epsim {

/// What `epsim route` reads of a file.
struct RouteInput {
  std::int64_t tokens = 0;
  int experts = 0;                       ///< columns of `logits`
  std::vector<float> logits;             ///< [T][E]; with several layers one after another
  bool logits_computed = false;          ///< from `x` and a gate
  std::vector<float> noise;              ///< [T][E] x W_noise
  std::vector<float> bias;               ///< [E] for choosing
  std::vector<float> earlier;            ///< [E] counts of an earlier step
  std::vector<std::int64_t> token_ids;   ///< [T]
  std::vector<std::uint8_t> counted;     ///< [T] the attention mask
  std::vector<std::string> unused;       ///< arrays that are neither read nor written by `epsim route`, each as "`NAME` is not used", perhaps with a hint
};

/// Reads, by the ending of its name, a .npz, .npy (logits alone) or .safetensors file: `logits` [T, E] or [layers, T, E]; or `x` [T, h] with `gate` [h, E] or `gate_weight` [E, h] and perhaps `linear_bias` [E], or with Tutel's cosine gate
/// (`cosine_projector` [h, p], `sim_matrix` [p, E], `temperature`). Optional: `noise` [T, E], `bias` [E], `token_ids` [T], `earlier_counts` [E], `attention_mask` [T]. Throws InputError with every problem of the file.
RouteInput read_route_input(const std::shared_ptr<const SourceText>& file);

}  // namespace epsim
