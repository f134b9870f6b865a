#include "policies/capacity.h"

namespace epsim::parts_capacity {

/// Keeps every choice, as inference engines and Megatron's default do.
Capacity dropless(Params&, const Shape*) {
  Capacity capacity;
  capacity.summary = "Keeps every choice.";
  return capacity;
}

}  // namespace epsim::parts_capacity
