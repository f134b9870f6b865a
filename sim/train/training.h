#pragma once
#include <string>
#include <vector>

#include "sim/experiment.h"
#include "sim/train/text.h"

namespace epsim {

/// The optimiser: AdamW (Loshchilov and Hutter, arXiv 1711.05101). Weight decay holds for matrices, not for gains and gates.
struct Optimiser {
  double learning_rate = 0, router_learning_rate = 0;  ///< at their highest
  int warmup = 0;                                      ///< steps over which they rise from 0 in a straight line
  double final_share = 1;                              ///< of the rates that is left at the last step; they fall in a straight line
  double beta1 = 0.9, beta2 = 0.95, weight_decay = 0;
  double clip = 0;  ///< largest length of the whole gradient; 0: any
};

/// A training run, read and checked.
struct Training {
  std::string name;  ///< of the variant and the seed, or of the file
  std::string variant;
  std::uint64_t seed = 0;
  TextModel model;
  TextModelInit init;
  int top_k = 0;
  Optimiser optimiser;
  int steps = 0, evaluate_every = 0, checkpoint_every = 0, held_out_batches = 0;
  std::int64_t batch = 0, sequence = 0, trace_tokens = 0;
  bool trace_weights = true;
  Text text;
  Setting resolved;  ///< the settings in force

  bool biased() const;  ///< whether a loss keeps a bias for choosing
};

/// The runs of an experiment: each variant of it with each seed, or the one that it describes.
struct TrainingFile {
  std::string name, title;
  std::vector<std::string> panels;    ///< columns of steps.csv that the figure shows
  std::vector<std::string> variants;  ///< in order; one that is "" where there are none
  std::vector<Training> runs;         ///< variant by variant
};

/// Reads an experiment of `epsim train`. `texts` take the place of the file's. Finds every problem in one pass and throws them as one InputError.
TrainingFile read_training(std::shared_ptr<const SourceText> file, const std::vector<std::string>& overrides, const std::vector<std::string>& texts, const Catalogs& catalogs);

}  // namespace epsim
