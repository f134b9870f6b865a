#pragma once
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/params.h"

namespace epsim {

/// A share (above 0, at most 1) that depends on a size or a count: given at some, between two of them linear in the logarithm, outside them that of the nearest. Without any it is 1.
class Curve {
 public:
  struct Point {
    double x = 0;  ///< at least 1
    double share = 1;
  };
  Curve() = default;
  explicit Curve(std::vector<Point> ascending);

  bool flat() const { return points_.empty(); }
  double operator()(double x) const;
  std::span<const Point> points() const { return points_; }

 private:
  std::vector<Point> points_;
  std::vector<double> logs_;  // of each point's x
};

/// Reads a map such as {4KiB: 0.2, 1MiB: 0.95}: `parse` reads a key (at least 1), `keys` says in words what it is.
Curve read_curve(Params& p, std::string_view key, std::string_view keys, std::string_view help, std::optional<double> (*parse)(std::string_view));

}  // namespace epsim
