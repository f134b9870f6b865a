#include <algorithm>

#include "policies/compression/shared/keep.h"

namespace epsim::parts_compression {
namespace {

/// The dominant experts stay; each other one joins the dominant one that it is most like, the first of equals.
ExpertMap join(const ExpertsSeen& seen, int keep) {
  const std::vector<int> dominant = largest(seen.choices, keep);
  ExpertMap map = keep_only(seen.experts, dominant);
  for (int e = 0; e < seen.experts; ++e) {
    if (map.to[static_cast<std::size_t>(e)] != kNoExpert) continue;
    const auto nearest = std::ranges::max_element(dominant, {}, [&](int d) { return seen.likeness(e, d); });
    map.to[static_cast<std::size_t>(e)] = static_cast<std::uint16_t>(nearest - dominant.begin());
  }
  return map;
}

}  // namespace

/// The experts that are chosen most stay dominant, and each other one is merged into the one whose gate logits are most like its own over the tokens (cosine), weights averaged by how often each is chosen, after their hidden
/// units were brought into the dominant one's order (MC-SMoE, Li et al., ICLR 2024, arXiv 2310.01334, with as many experts in each layer). Where only choices are known, the weights that tokens gave an expert stand for its logits.
Compression frequency_merge(Params& p, const Shape* shape) {
  Compression compression;
  compression.summary = "merges each expert into that one of the most chosen whose gate logits are most like its own (MC-SMoE)";
  compression.sees = Compression::Sees::gate;
  const int keep = read_keep(p, shape);
  compression.align = p.flag("align", "bring hidden units into the dominant expert's order before weights are averaged", true);
  if (!p.usable() || !shape) return compression;
  if (shape->source_has_choices && shape->top_k == 1) p.error("", "the source brings one choice of each token and no scores: nothing says which experts are alike");
  compression.experts = keep;
  compression.decide = [keep](const ExpertsSeen& seen) { return join(seen, keep); };
  return compression;
}

}  // namespace epsim::parts_compression
