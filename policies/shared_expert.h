#pragma once
#include "policies/plan.h"

namespace epsim {

/// Which rank computes each token's shared expert, of which every rank has a copy.
struct SharedExpertRule {
  std::string_view summary;
  /// The rank of each token [T] of a plan whose copies have their slots: a pure function of the plan. Null: each token's home rank.
  std::function<std::vector<Rank>(const Plan& plan)> choose;
};

/// Lets the rule say which rank computes the shared expert of each of a plan's tokens; a plan all of whose tokens stay at home is left as it is.
/// Throws std::logic_error where the rule does not name a rank for every token.
void settle_shared_expert(Plan& plan, const SharedExpertRule& rule, const Topology& topology);

using SharedExpertCatalog = Catalog<SharedExpertRule, const Shape*>;
SharedExpertCatalog builtin_shared_expert_rules();

}  // namespace epsim
