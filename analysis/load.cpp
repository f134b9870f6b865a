#include <algorithm>
#include <cmath>

#include "analysis/measure.h"

namespace epsim {

LoadMetrics load_metrics(const std::vector<std::int64_t>& loads, std::int64_t tokens) {
  LoadMetrics m;
  if (loads.empty()) return m;
  const auto [lowest, highest] = std::minmax_element(loads.begin(), loads.end());
  const double min = static_cast<double>(*lowest), max = static_cast<double>(*highest);
  if (max == 0) return m;
  std::int64_t sum = 0;
  for (const std::int64_t load : loads) sum += load;
  const double mean = static_cast<double>(sum) / static_cast<double>(loads.size());
  double squares = 0;
  for (const std::int64_t load : loads) squares += (static_cast<double>(load) - mean) * (static_cast<double>(load) - mean);
  m.max_over_mean = max / mean;
  m.max_minus_mean_over_mean = (max - mean) / mean;
  m.mean_over_max = mean / max;
  m.max_plus_1_over_min_plus_1 = (max + 1) / (min + 1);
  m.std_over_mean = std::sqrt(squares / static_cast<double>(loads.size())) / mean;
  m.max_minus_min_over_tokens = tokens > 0 ? (max - min) / static_cast<double>(tokens) : 0;
  return m;
}

}  // namespace epsim
