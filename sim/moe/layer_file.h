#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "sim/moe/layer.h"

namespace epsim {

/// A layer and its tokens, as `epsim layer` reads them from an .npz file: x [T,hidden], gate [hidden,columns], w1 [experts,hidden,ffn], w2 [experts,ffn,hidden] and any other array of
/// `tensors`; and r [T,hidden], the gradient to y, without which there is no backward pass. Lengths of 1 in a shape may be left out or added.
struct LayerFile {
  LayerShape shape;  ///< the sizes; the rest is not the file's to say. Of experts that compute nothing it knows how many there are and which of them are constant: others count as zero ones
  LayerWeights weights;
  std::vector<float> x, r;
  std::map<std::string, std::vector<std::int64_t>> shapes;  ///< as the file spells them, of the arrays that are used
  std::vector<float> bias;             ///< [columns] added to scores for choosing only; this and the next are empty where the file has no such array
  std::vector<float> noise;            ///< [T][columns] x W_noise
  std::vector<float> earlier_counts;   ///< [columns] of an earlier step
  std::vector<std::int64_t> token_ids; ///< [T]
  std::vector<std::uint8_t> counted;   ///< [T] from `attention_mask`: 0 where losses leave the token out
  std::vector<std::string> unused;  ///< names of arrays that are neither read nor written by `epsim layer`
};

/// Reads the file; `activation` tells which matrices there must be. Throws InputError with every problem of the file.
LayerFile read_layer_file(std::shared_ptr<const SourceText> file, Activation activation);

/// The bytes of an .npz with y [T,hidden], expert_ids, weights (before any drop), kept and weights_after (what y is made with; 0 where not kept) [T,k], and where `gradients` are given dx and a
/// gradient dNAME of each array of weights, in its own shape.
std::string layer_results(const LayerFile& file, const LayerForward& forward, LayerGradients* gradients);

}  // namespace epsim
