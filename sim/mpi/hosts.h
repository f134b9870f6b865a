#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace epsim {

/// Which plan ranks each process hosts: contiguous blocks.
struct Hosts {
  std::vector<int> first;  ///< [processes + 1]

  Hosts(int ranks, int processes) {
    for (int p = 0; p <= processes; ++p) first.push_back(static_cast<int>(static_cast<std::int64_t>(p) * ranks / processes));
  }
  int process_of(int rank) const { return static_cast<int>(std::upper_bound(first.begin(), first.end(), rank) - first.begin()) - 1; }
};

}  // namespace epsim
