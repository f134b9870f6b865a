#pragma once
#include "policies/placement.h"

namespace epsim {

/// Reads `slots`, the number of slots over all ranks; 0 where it is not given: then `fallback` says how many there are. Fewer slots than experts are an error at the key.
std::int64_t read_slots(Params& params, const Shape* shape, std::string_view fallback = "one slot an expert");

/// First slot of each rank when slots are spread as evenly as they go: [R+1]. Where they do not divide, the first ranks get one more; ranks may get none.
std::vector<std::int32_t> spread_slots(std::int64_t slots, int ranks);

}  // namespace epsim
