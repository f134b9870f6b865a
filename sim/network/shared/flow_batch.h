#pragma once
#include <cstdint>
#include <vector>

#include "sim/network/network.h"

namespace epsim {

/// Flows that begin together.
struct FlowBatch {
  std::vector<std::int64_t> ids;  ///< the caller's
  std::vector<RankPair> pairs;
  std::vector<double> bytes;      ///< above 0
  std::vector<double> weights;    ///< above 0; empty: all alike

  std::size_t size() const { return ids.size(); }
  bool empty() const { return ids.empty(); }
  void add(std::int64_t id, RankPair pair, double size) {
    ids.push_back(id);
    pairs.push_back(pair);
    bytes.push_back(size);
  }
  void add(std::int64_t id, RankPair pair, double size, double weight) {
    add(id, pair, size);
    weights.push_back(weight);
  }
  double weight(std::size_t flow) const { return weights.empty() ? 1 : weights[flow]; }
  void reserve(std::size_t flows) {
    ids.reserve(flows);
    pairs.reserve(flows);
    bytes.reserve(flows);
  }
};

/// A flow whose last byte leaves.
struct FlowEnd {
  std::int64_t id;  ///< the caller's
  RankPair pair;
  double at;        ///< seconds
};

}  // namespace epsim
