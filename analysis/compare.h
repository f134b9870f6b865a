#pragma once
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "analysis/export/fields.h"
#include "analysis/plot/layer_time.h"

namespace epsim {

/// One setting that a comparison varies: a key as `--set` takes it, and its values.
struct Axis {
  std::string key;
  std::vector<std::string> values;
};

/// Reads "key=a,b,c"; commas inside brackets, braces or quotes do not split. Throws InputError when there is no key or a value is empty.
Axis parse_axis(const std::string& text);

/// One point of the grid of axes: its value on each axis and what all its layers came to. Times and bytes are those of a batch, means over all samples.
struct ComparedPoint {
  std::vector<std::string> values;  ///< [axes]
  std::vector<double> samples_s;    ///< total of each batch of each seed; those of two points belong together pair by pair
  double total_s = 0, dispatch_s = 0, compute_s = 0, combine_s = 0, waited_s = 0, lower_bound_s = 0;
  double rank_load_max_over_mean = 0, rank_load_std_over_mean = 0, rank_load_mean_over_max = 0, rank_rows_max_over_mean = 0;  ///< means over the layers
  double bytes = 0, cross_node_bytes = 0;  ///< of dispatch and combine
  double busiest_link_bytes = 0;           ///< of the busiest link of each exchange
  double max_rank_weights_bytes = 0, max_rank_activations_bytes = 0;  ///< of the fullest rank of each layer: summed over layers; largest of all layers
  double memory_bytes = 0;                                            ///< of a rank's device; 0: not known
  double slots = 0;                                                   ///< filled, over all ranks: mean over the layers
  double max_rank_copies = 0, optimum_max_rank_copies = 0;  ///< sums over the layers
  double busiest_links_s = 0, optimum_links_s = 0, layers_s = 0, optimum_s = 0;
  double moved_experts = 0, moved_bytes = 0, restored_bytes = 0;  ///< by placing anew
  std::int64_t lost_tokens = 0;               ///< of ranks that are down
  BreakEven break_even;
  std::int64_t choices = 0, dropped_choices = 0;
  double placing_s = 0;    ///< clock seconds of the placement policy, all batches: for people, not for files
  std::string bottleneck;  ///< of the slowest layer

  double drop_rate() const { return choices > 0 ? static_cast<double>(dropped_choices) / static_cast<double>(choices) : 0; }
  bool fits() const { return memory_bytes == 0 || max_rank_weights_bytes + max_rank_activations_bytes <= memory_bytes; }
};
/// `runs`: one a seed, all of as many batches. `memory_bytes`: as in ComparedPoint.
ComparedPoint compared_point(std::vector<std::string> values, const std::vector<RunMetrics>& runs, double memory_bytes = 0);

/// Total of each batch of a run, with the time that its layers waited for weights.
std::vector<double> samples_of(const RunMetrics& run);
/// Forgets the seeds whose samples equal the first seed's at every point: nothing that they play is drawn, so they are the same data again. `runs`: [points][seeds]. Gives how many it forgot.
int forget_repeated_seeds(std::vector<std::vector<RunMetrics>>& runs);

/// How much longer a point takes than another, in parts of the other's mean, sample by sample, and the half width of the 95 % confidence interval of that mean (Student's t); the half width is infinite with one sample.
struct Difference {
  double mean = 0, half_width = 0;
};
Difference difference(const ComparedPoint& point, const ComparedPoint& other);

/// The grid that was played, and what is the same at all its points: a text is empty, `seed` nothing and `layers` 0 where points differ.
struct Comparison {
  std::string name, model, machine;  ///< of the experiment; the machine as "64 ranks in 8 nodes of h800", without what differs
  std::optional<std::uint64_t> seed = 0;
  int layers = 0, batches = 1, seeds = 1;
  std::vector<Axis> axes;
  std::vector<ComparedPoint> points;  ///< the grid, last axis fastest
  int repeated_seeds = 0;             ///< that were played besides `seeds`, and forgotten

  std::string subject() const;        ///< "deepseek-v3 on 64 ranks in 8 nodes of h800"; what there is of it
  std::string samples() const;        ///< "means of 3 batches, 5 seeds from 42"; what there is of it
  const ComparedPoint& best() const;  ///< of the shortest total; the first of equals
};

/// The columns after the axes in compare.csv and of `points[]` in compare.json, in order.
struct PointField {
  std::string_view name;
  FieldValue (*value)(const ComparedPoint&, const ComparedPoint& best);
};
const std::vector<PointField>& point_fields();

void write_text(std::ostream& out, const Comparison& comparison);
void write_json(std::ostream& out, const Comparison& comparison);
void write_csv(std::ostream& out, const Comparison& comparison);
/// The figure of a comparison: a group of bars for each value of the first axis, a bar for each combination of the others; whiskers are those of `difference` to the best.
LayerTimeFigure figure(const Comparison& comparison);

}  // namespace epsim
