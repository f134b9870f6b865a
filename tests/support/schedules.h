#pragma once
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "policies/schedule.h"
#include "sim/compute/compute.h"

namespace epsim::testing {

/// Rows of one byte each.
inline Phase transfer(int ranks, std::vector<int> after, const std::vector<std::tuple<int, int, std::int64_t>>& messages, Stage stage = Stage::dispatch) {
  Phase p;
  p.kind = Phase::Kind::transfer;
  p.stage = stage;
  p.name = "transfer";
  p.after = std::move(after);
  std::vector<RowTable::Entry> entries;
  for (const auto& [s, d, bytes] : messages) entries.push_back({Rank(s), Rank(d), bytes});
  p.rows = RowTable(ranks, std::move(entries));
  p.row_bytes = 1;
  return p;
}

/// Calls of (rank, nanoseconds) under `nanoseconds`.
inline Phase kernels(std::vector<int> after, const std::vector<std::pair<int, double>>& calls, Stage stage = Stage::compute) {
  Phase p;
  p.kind = Phase::Kind::kernel;
  p.stage = stage;
  p.name = "kernels";
  p.after = std::move(after);
  for (const auto& [rank, ns] : calls) p.kernels.push_back({Rank(rank), Slot(0), ns > 0 ? 1 : 0, ns, 0, 0});
  return p;
}

inline Phase reduce(std::vector<int> after, std::vector<double> ns, Stage stage = Stage::combine) {
  Phase p;
  p.kind = Phase::Kind::reduce;
  p.stage = stage;
  p.name = "reduce";
  p.after = std::move(after);
  p.reduce_bytes = std::move(ns);
  return p;
}

/// A compute model where a FLOP and a byte take a nanosecond.
inline ComputeModel nanoseconds() {
  ComputeModel m;
  m.kernel_seconds = [](const Device&, const KernelCall& k, Precision) { return k.flops * 1e-9; };
  m.reduce_seconds = [](const Device&, double bytes) { return bytes * 1e-9; };
  return m;
}

/// 1 to 6 phases of any kind that wait for random earlier ones, with ranks that have nothing to do.
inline Schedule random_schedule(Rng& rng, int ranks) {
  Schedule s{ranks, {}};
  const auto phases = 1 + static_cast<int>(rng.below(6));
  for (int i = 0; i < phases; ++i) {
    std::vector<int> after;
    for (int b = 0; b < i; ++b)
      if (rng.below(2)) after.push_back(b);
    const auto amount = [&] { return rng.below(3) ? static_cast<std::int64_t>(1 + rng.below(1'000'000)) : 0; };
    switch (rng.below(4)) {
      case 0: {
        std::vector<std::pair<int, double>> calls;
        for (int r = 0; r < ranks; ++r)
          for (std::uint64_t c = rng.below(3); c > 0; --c) calls.emplace_back(r, static_cast<double>(amount()));
        s.phases.push_back(kernels(after, calls));
        break;
      }
      case 1: {
        std::vector<double> bytes;
        for (int r = 0; r < ranks; ++r) bytes.push_back(static_cast<double>(amount()));
        s.phases.push_back(reduce(after, bytes));
        break;
      }
      default: {
        std::vector<std::tuple<int, int, std::int64_t>> messages;
        const std::uint64_t sparse = 1 + rng.below(3);
        for (int a = 0; a < ranks; ++a)
          for (int b = 0; b < ranks; ++b)
            if (rng.below(sparse) == 0) messages.emplace_back(a, b, amount());
        s.phases.push_back(transfer(ranks, after, messages, rng.below(2) ? Stage::dispatch : Stage::combine));
        for (int b = 0; b < i; ++b)
          if (s.phases[static_cast<std::size_t>(b)].kind == Phase::Kind::transfer && rng.below(3) == 0) s.phases.back().after_sent.push_back(b);
      }
    }
  }
  return s;
}

}  // namespace epsim::testing
