#include "workloads/source/shared/hot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace epsim {

Hot read_hot(Params& params, const SourceContext* context) {
  const std::int64_t hot = params.integer("hot", "how many experts are hot at a time", 0, 1, 65'535, "a sixteenth of the experts, at least 1");
  const double factor = params.number("factor", "how many times as popular as otherwise a hot expert is", 8.0, 1, 1e6);
  if (!context || context->experts < 1) return {};
  if (hot > context->experts) params.error("hot", fmt::format("{} experts cannot be hot, the model has {}", hot, context->experts));
  return {static_cast<int>(hot ? hot : std::max(1, context->experts / 16)), static_cast<float>(std::log(factor))};
}

}  // namespace epsim
