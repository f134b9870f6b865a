#pragma once
#include <span>

#include "policies/placement.h"

namespace epsim {

/// The rank of each expert's first replica: in the placement in force or, where there is none, in contiguous blocks. [E]
std::vector<Rank> home_ranks(const Problem& problem, std::size_t layer);

/// Every expert on one rank; a rank's experts are in order.
Placement place_experts(std::span<const Rank> rank, int ranks);

/// Copies of an expert that a rank other than its home is planned to compute.
struct Quota {
  Expert expert;
  Rank rank;
  std::int64_t copies = 0;
};

/// Every expert on its home (its first replica), and a further slot on each rank that has a quota of it, in order of ranks; a rank's own experts come before
/// those of others, both in order. Shares follow the quotas, the home has what is left of the expert's load. Quotas of one expert and rank are added up; one of
/// 0 copies is a replica of share 0.
Placement place_quotas(std::span<const Rank> home, int ranks, std::span<const std::int64_t> loads, std::vector<Quota> quotas);

}  // namespace epsim
