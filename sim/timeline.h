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
  /// A rank's part of a phase. Of a transfer: from the first start to the last arrival of the messages it sends or receives, no slice where there are none; of kernels: one slice a call with rows;
  /// of a reduce: one slice where there are bytes.
  struct Slice {
    std::int32_t phase;
    Rank rank;
    Slot slot;            ///< of a kernel call; invalid for the shared expert and for other kinds
    std::int64_t rows;    ///< of a transfer: received from other ranks; of a kernel call: computed
    Time begin, end;
  };
  struct FlowRecord {
    std::int32_t phase;
    Rank source, destination;
    Bytes bytes;
    Time begin, end;
    double end_s;  ///< the arrival on the network's own clock, not yet rounded up to a picosecond
  };
  std::vector<Slice> slices;      ///< by phase, then rank, then begin
  std::vector<FlowRecord> flows;  ///< only at Detail::flow; by phase, then source, then destination
  /// When each rank was done with each phase: [phases][R].
  std::vector<std::vector<Time>> done;
  Time end;
  /// The network's own estimate of how far off 99 of 100 arrivals are at most for its tolerance, relative: Network::arrival_error, of all that it carried.
  double arrival_error = 0;

  /// Times of the three stages. They follow the slowest rank: dispatch ends when the last rank is done with it, compute when the last is done computing; they add up to the end exactly.
  struct Stages {
    Time dispatch, compute, combine;
  };
  Stages stages(const Schedule& schedule) const;
};

}  // namespace epsim
