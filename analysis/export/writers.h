#pragma once
#include <iosfwd>
#include <string>

#include "analysis/link_use.h"
#include "analysis/measure.h"
#include "base/npz.h"

namespace epsim {

/// For people: a table of the layers (of their spread when there are many), totals, the verdict, drops, and how far to trust each group of figures.
void write_text(std::ostream& out, const Experiment& experiment, const RunMetrics& run);
/// metrics.json: what was run (settings, seed, model, sizes), `layers[]`, `total_s`, `links[]` and trust labels. Holds no clock time: same run, same bytes.
void write_json(std::ostream& out, const Experiment& experiment, const RunMetrics& run);
/// metrics.csv (RFC 4180): one row a layer, units in the column names.
void write_csv(std::ostream& out, const RunMetrics& run);

/// Collects the matrices of a run for matrices.npz. Rank pairs by layer are kept only while they fit in 64 MiB an array; their sum over layers always is.
class MatrixCollector {
 public:
  explicit MatrixCollector(const Experiment& experiment);
  /// Adds a layer; `metrics` still has its matrices.
  void add(const LayerMetrics& metrics, const Placement& placement);
  /// Adds how the two exchanges of a layer use the links over time; each time as many bins.
  void add_over_time(const LinkUse& dispatch, const LinkUse& combine);
  /// Bytes that the file takes at the least once it has every layer of the run, and `layers_over_time` of them over time in `bins` parts: slots are not known before.
  double least_bytes(std::int64_t layers_over_time, std::int64_t bins) const;
  /// The bytes of the file.
  std::string bytes() const;

 private:
  struct Stacked {  ///< one [...] block a layer
    std::vector<std::int64_t> values;
    void add(const Matrix<std::int64_t>& m) { values.insert(values.end(), m.cells.begin(), m.cells.end()); }
  };
  void add_sum(std::vector<std::int64_t>& sum, const Matrix<std::int64_t>& m) const;

  std::int64_t ranks_, nodes_, links_, experts_, layers_of_run_;
  bool keeps_rank_pairs_;
  std::vector<double> bandwidth_;
  std::vector<std::int64_t> batches_, layers_, dispatch_sum_, combine_sum_;
  Stacked dispatch_ranks_, combine_ranks_, dispatch_nodes_, combine_nodes_, dispatch_links_, combine_links_, expert_choices_, rank_copies_, rank_shared_rows_, first_slot_, weights_,
      activations_;
  std::int64_t layers_over_time_ = 0, bins_ = 0;
  std::vector<double> dispatch_over_time_, combine_over_time_;            ///< [K][links][bins]
  std::vector<double> dispatch_begin_end_, combine_begin_end_;            ///< [K][2]
  std::vector<std::vector<std::uint16_t>> expert_of_slot_;  ///< [L][P of that layer]
};

}  // namespace epsim
