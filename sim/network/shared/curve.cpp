#include "sim/network/shared/curve.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace epsim {

Curve::Curve(std::vector<Point> ascending) : points_(std::move(ascending)) {
  for (const Point& p : points_) logs_.push_back(std::log(p.x));
}

double Curve::operator()(double x) const {
  if (points_.empty()) return 1;
  const auto above = std::upper_bound(points_.begin(), points_.end(), x, [](double value, const Point& p) { return value < p.x; });
  if (above == points_.begin()) return points_.front().share;
  if (above == points_.end()) return points_.back().share;
  const auto i = static_cast<std::size_t>(above - points_.begin());
  const double part = (std::log(x) - logs_[i - 1]) / (logs_[i] - logs_[i - 1]);
  return points_[i - 1].share + part * (points_[i].share - points_[i - 1].share);
}

Curve read_curve(Params& p, std::string_view key, std::string_view keys, std::string_view help, std::optional<double> (*parse)(std::string_view)) {
  std::vector<Curve::Point> points;
  p.custom(key, fmt::format("a map from {} to shares", keys), "{}", help, [&](const Setting& value, Diagnostics& problems) {
    if (!value.is_map() || value.entries.empty()) return problems.add(value.at, fmt::format("`{}` must be a map from {} to shares", key, keys));
    for (const Setting::Entry& e : value.entries) {
      const std::optional<double> x = parse(e.key), share = e.value.is_scalar() ? parse_number(e.value.text) : std::nullopt;
      if (!x || *x < 1)
        problems.add(e.at, fmt::format("`{}` is none of the {} that `{}` maps", e.key, keys, key));
      else if (!share || !(*share > 0 && *share <= 1))
        problems.add(e.value.at, fmt::format("a share in `{}` must be a number above 0 and at most 1", key));
      else if (std::any_of(points.begin(), points.end(), [&](const Curve::Point& other) { return other.x == *x; }))
        problems.add(e.at, fmt::format("`{}` has `{}` twice", key, e.key));
      else
        points.push_back({*x, *share});
    }
  });
  std::sort(points.begin(), points.end(), [](const Curve::Point& a, const Curve::Point& b) { return a.x < b.x; });
  return Curve(std::move(points));
}

}  // namespace epsim
