#include <algorithm>

#include "workloads/source/shared/synthetic.h"

namespace epsim::parts_source {

Source uniform(Params& p, const SourceContext* context) {
  Source source;
  source.summary = "synthetic gate logits; all experts are equally popular";
  source.first_token = read_token_blocks(p, context);
  if (!p.usable() || !context) return source;
  make_synthetic(source, *context, [](int, std::span<float> log_popularity) { std::ranges::fill(log_popularity, 0.0F); });
  return source;
}

}  // namespace epsim::parts_source
