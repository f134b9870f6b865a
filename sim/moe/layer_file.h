#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "sim/moe/layer.h"

namespace epsim {

/// A layer and its tokens, as `epsim layer` reads them from an .npz file: x [T,hidden], gate [hidden,experts], w1 [experts,hidden,ffn], w2 [experts,ffn,hidden] and any other array of
/// `tensors`; and r [T,hidden], the gradient to y, without which there is no backward pass. Lengths of 1 in a shape may be left out or added.
struct LayerFile {
  LayerShape shape;  ///< the sizes; the rest is not the file's to say
  LayerWeights weights;
  std::vector<float> x, r;
  std::map<std::string, std::vector<std::int64_t>> shapes;  ///< as the file spells them, of the arrays that are used
  std::vector<float> bias;          ///< [experts], from an array `bias`: added to scores for choosing only; empty: there is none
  std::vector<std::string> unused;  ///< names of arrays that are neither read nor written by `epsim layer`
};

/// Reads the file; `activation` tells which matrices there must be. Throws InputError with every problem of the file.
LayerFile read_layer_file(std::shared_ptr<const SourceText> file, Activation activation);

/// The bytes of an .npz with y [T,hidden], expert_ids, weights (before any drop), kept and weights_after (what y is made with; 0 where not kept) [T,k], and where `gradients` are given dx and a
/// gradient dNAME of each array of weights, in its own shape.
std::string layer_results(const LayerFile& file, const LayerForward& forward, LayerGradients* gradients);

}  // namespace epsim
