#include "policies/compression/shared/keep.h"

namespace epsim::parts_compression {

/// Prunes the experts that are chosen least: the baseline of every work on pruning.
Compression frequency_prune(Params& p, const Shape* shape) {
  Compression compression;
  compression.summary = "prunes the experts that are chosen least";
  compression.sees = Compression::Sees::choices;
  const int keep = read_keep(p, shape);
  if (!p.usable() || !shape) return compression;
  compression.experts = keep, compression.pruned = shape->experts - keep;
  compression.decide = [keep](const ExpertsSeen& seen) { return keep_only(seen.experts, largest(seen.choices, keep)); };
  return compression;
}

}  // namespace epsim::parts_compression
