#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/params.h"
#include "base/units.h"
#include "policies/capacity.h"

namespace epsim {

/// A capacity factor and how it is multiplied with: as a fraction, or with the rounding of a framework that does it in double or in single precision.
struct Factor {
  enum class Arithmetic { exact, float64, float32 };
  Rational factor{1, 1};
  Arithmetic arithmetic = Arithmetic::exact;

  /// num / den x factor x times, rounded; at least 0 and at most 10^15.
  std::int64_t down(std::int64_t num, std::int64_t den, std::int64_t times = 1) const;
  std::int64_t up(std::int64_t num, std::int64_t den, std::int64_t times = 1) const;
  std::int64_t nearest(std::int64_t num, std::int64_t den, std::int64_t times = 1) const;  ///< halves to the even neighbour
};

/// Reads `factor`, which `help` explains, and `arithmetic`, where the first of `modes` is the framework's own.
Factor read_factor(Params& p, std::string_view help, const std::vector<std::string>& modes = {"double", "exact"}, std::optional<Rational> fallback = {});
/// Reads `overflow` and `pad`: what every rule that drops at the sender can do.
void read_overflow(Capacity& capacity, Params& p);
/// Refuses orders by weight where there are none, and `next_best` without scores.
void check_order(const Capacity& capacity, Params& p, const Shape* shape);
/// Takes `group` for the scope, and refuses what groups cannot do.
void check_group(Capacity& capacity, Params& p);

}  // namespace epsim
