#include "policies/shared_expert.h"

namespace epsim::parts_shared_expert {

/// Every rank computes the shared expert of its own tokens, beside the dispatch.
SharedExpertRule own(Params&, const Shape*) {
  SharedExpertRule rule;
  rule.summary = "Every rank computes the shared expert of its own tokens.";
  return rule;
}

}  // namespace epsim::parts_shared_expert
