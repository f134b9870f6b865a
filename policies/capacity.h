#pragma once
#include "policies/routing.h"

namespace epsim {

/// How many choices an expert may keep, and who is kept.
struct Capacity {
  std::string_view summary;
  enum class Order { position, probability };
  /// The choices of a source rank that each expert keeps at most: [R][E]. Empty: no limit at all.
  std::function<Matrix<std::int64_t>(const Matrix<std::int64_t>& choices, const Routing& routing)> limits;
  Order order = Order::position;  ///< kept first: the lowest token id, or the highest weight (ties: lowest token id)
};

using CapacityCatalog = Catalog<Capacity, const Shape*>;
CapacityCatalog builtin_capacities();

}  // namespace epsim
