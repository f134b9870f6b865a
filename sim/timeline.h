#pragma once
#include <cstdint>
#include <vector>

#include "base/ids.h"
#include "base/units.h"
#include "policies/schedule.h"

namespace epsim {

/// What happened when: produced by `simulate` and by `execute` alike, and all that analysis reads.
struct Timeline {
  enum class Detail { rank, flow };
  /// A rank's part of a phase: of a transfer, from its first send or the first arrival's start to the last arrival; of kernels, one slice a call.
  struct Slice {
    std::int32_t phase;
    Rank rank;
    Slot slot;            ///< of a kernel call
    std::int64_t rows;
    Time begin, end;
  };
  struct FlowRecord {
    std::int32_t phase;
    Rank source, destination;
    Bytes bytes;
    Time begin, end;
  };
  std::vector<Slice> slices;
  std::vector<FlowRecord> flows;  ///< only at Detail::flow
  /// When each rank was done with each phase: [phases][R].
  std::vector<std::vector<Time>> done;
  Time end;

  /// Times of the three stages. They follow the slowest rank: dispatch ends when the last rank is done with it, compute when the last is done computing; they add up to the end.
  struct Stages {
    Time dispatch, compute, combine;
  };
  Stages stages(const Schedule& schedule) const;
};

}  // namespace epsim
