#include "policies/compression/shared/keep.h"

namespace epsim::parts_compression {

/// Prunes the experts of least saliency, the mean over the tokens that chose an expert of weight times length of its output (REAP, Lasby et al., arXiv 2510.13999).
Compression reap(Params& p, const Shape* shape) {
  Compression compression;
  compression.summary = "prunes the experts whose weighted outputs are shortest in the mean over the tokens that chose them (REAP)";
  compression.sees = Compression::Sees::outputs;
  const int keep = read_keep(p, shape);
  if (!p.usable() || !shape) return compression;
  compression.experts = keep, compression.pruned = shape->experts - keep;
  compression.decide = [keep](const ExpertsSeen& seen) { return keep_only(seen.experts, largest(seen.saliency, keep)); };
  return compression;
}

}  // namespace epsim::parts_compression
