#pragma once
#include <iosfwd>
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

/// One point of the grid of axes: its value on each axis and what all its layers came to.
struct ComparedPoint {
  std::vector<std::string> values;  ///< [axes]
  double total_s = 0, dispatch_s = 0, compute_s = 0, combine_s = 0, lower_bound_s = 0;
  double rank_load_max_over_mean = 0;  ///< mean over the layers
  std::int64_t choices = 0, dropped_choices = 0;
  std::string bottleneck;  ///< of the slowest layer

  double drop_rate() const { return choices > 0 ? static_cast<double>(dropped_choices) / static_cast<double>(choices) : 0; }
};
ComparedPoint compared_point(std::vector<std::string> values, const RunMetrics& run);

struct Comparison {
  std::string name, model, machine;  ///< of the experiment; the machine as "64 ranks in 8 nodes of h800"
  std::uint64_t seed = 0;
  int layers = 0;
  std::vector<Axis> axes;
  std::vector<ComparedPoint> points;  ///< the grid, last axis fastest

  double best_s() const;  ///< the shortest total
};

/// The columns after the axes in compare.csv and of `points[]` in compare.json, in order.
struct PointField {
  std::string_view name;
  FieldValue (*value)(const ComparedPoint&, double best_s);
};
const std::vector<PointField>& point_fields();

void write_text(std::ostream& out, const Comparison& comparison);
void write_json(std::ostream& out, const Comparison& comparison);
void write_csv(std::ostream& out, const Comparison& comparison);
/// The figure of a comparison: a group of bars for each value of the first axis, a bar for each combination of the others.
LayerTimeFigure figure(const Comparison& comparison);

}  // namespace epsim
