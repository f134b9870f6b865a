#include "policies/placement/shared/slots.h"

#include <fmt/format.h>

namespace epsim {

std::int64_t read_slots(Params& params, const Shape* shape, std::string_view fallback) {
  const std::int64_t slots = params.integer("slots", "slots over all ranks, one expert replica each", 0, 1, std::int64_t{1} << 20, fallback);
  if (shape && params.has("slots") && params.usable() && slots < shape->experts)
    params.error("slots", fmt::format("{} slots are fewer than the {} experts: every expert needs a slot", slots, shape->experts));
  return slots;
}

std::vector<std::int32_t> spread_slots(std::int64_t slots, int ranks) {
  std::vector<std::int32_t> first(static_cast<std::size_t>(ranks) + 1);
  for (std::int64_t r = 0; r < ranks; ++r)
    first[static_cast<std::size_t>(r) + 1] = first[static_cast<std::size_t>(r)] + static_cast<std::int32_t>(slots / ranks + (r < slots % ranks ? 1 : 0));
  return first;
}

}  // namespace epsim
