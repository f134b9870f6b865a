#pragma once
#include <iosfwd>
#include <memory>

#include "sim/run.h"

namespace epsim {

/// Writes a gzipped Perfetto trace (`.pftrace`) layer by layer, in constant memory. A process for each rank, threads for dispatch, compute and combine (and "dispatch 2", ...
/// where slices of one stage overlap), a slice for each phase and kernel call, and flow arrows for the largest messages of each transfer phase, from where the sender's slice
/// begins to where the receiver's ends. Times are floored to nanoseconds. Holds no clock time: same run, same bytes.
class TraceWriter {
 public:
  static constexpr int kFlowsPerPhase = 64;
  /// `out` must outlive the writer and be binary.
  TraceWriter(std::ostream& out, const Topology& topology, int flows_per_phase = kFlowsPerPhase);
  ~TraceWriter();
  /// Adds a layer that begins at `offset`: not before the end of the layer added last.
  void add(const LayerRun& run, Time offset);
  /// Ends the file; nothing can be added after. Throws std::runtime_error when the stream took not all of it.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace epsim
