#pragma once
#include "policies/placement.h"

namespace epsim {

/// The settings of LAER-MoE's time model and of the FlexMoE that its authors compare with.
struct LaerSettings {
  std::int64_t slots = 0;  ///< over all ranks; 0: one redundant slot a rank
  double flops = 0;        ///< FLOP/s of a rank; 0: the device's
  Bandwidth intra = 0, inter = 0;
  bool recompute = false;
};

/// Reads `slots`, `v_comp`, `v_intra`, `v_inter` and `recompute`.
LaerSettings read_laer(Params& params, const Shape* shape);
std::int64_t laer_slots(const LaerSettings& settings, const Problem& problem);

/// LAER-MoE's time model of one layer: every source splits its tokens evenly over the copies of an expert in its own node or, where there are none, over all
/// copies. Time is 4 x the SUM over sources of bytes sent / bandwidth + 3 x (4 with recomputation) the MAXIMUM over ranks of compute. Where sources are not
/// known they are taken to be alike; where the model is not known it is Mixtral 8x7B (4096 x 14336, 3 matrices, bf16), and the device an A100 of 312 TFLOP/s
/// (its data sheet).
class LaerTime {
 public:
  LaerTime(const Problem& problem, std::size_t layer, const LaerSettings& settings, std::span<const int> node_of_rank);

  struct Estimate {
    double seconds = 0;
    std::vector<double> load;     ///< tokens of each rank
    double max_over_min() const;  ///< (max + 1) / (min + 1) of the loads
  };
  Estimate operator()(const Placement& placement) const;

 private:
  const Problem& problem_;
  std::size_t layer_;
  std::span<const int> node_;
  double compute_s_, intra_s_, inter_s_, passes_;  // of a token
};

}  // namespace epsim
