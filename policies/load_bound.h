#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace epsim {

/// A number that nothing passes, and the argument that gave it.
struct Certificate {
  double value = 0;
  std::string_view because = "nothing";
};

/// Copies that some rank must compute at least, whatever the placement into these slots and whatever the replica rule. `loads`: copies of each expert; `slots`: of each rank.
/// `whole`: an expert's copies are split in whole parts, so that the bound is whole; otherwise in any parts, as even splits are. The arguments, each by contradiction with a fullest rank of at most M:
/// - `mean`: the ranks that have slots compute everything between them, so R M >= total.
/// - `slots`: a rank takes at most M of an expert, so expert e needs max(1, ceil(load / M)) ranks and as many slots; all together must not need more slots than there are, nor one expert more ranks.
/// - `pigeonhole`: slots beyond those needs can replicate at most as many of the experts that M does not force to be replicated; taking out as many of the heaviest leaves experts that lie whole on one rank each, however the placement chooses
///   (whichever it replicates, its j-th heaviest single is no lighter than the j-th heaviest of these). Among any k R + 1 of these some rank has k + 1, so M is at least the k + 1 lightest of the k R + 1 heaviest together. With two slots a rank and no redundancy this is the pairing bound.
/// O(E log E + E log total).
Certificate load_bound(std::span<const std::int64_t> loads, std::span<const std::int32_t> slots, bool whole = true);

/// The same for replicas of given weights, in even splits, with nothing left to choose but their ranks: mean, the heaviest, and pigeonholes.
Certificate packing_bound(std::vector<double> weights, int ranks);

}  // namespace epsim
