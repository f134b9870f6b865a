#include "workloads/import/recording.h"

#include <fmt/format.h>

namespace epsim {

void check_size(const Location& at, std::int64_t steps, std::int64_t rows, std::int64_t experts) {
  constexpr std::int64_t kMost = std::int64_t{1} << 28;  // of 8 bytes
  if (rows > 0 && experts > 0 && steps > kMost / rows / experts)
    throw InputError(at, fmt::format("counts of {} steps, {} layers and {} experts do not fit in 2 GiB; import fewer steps at a time", steps, rows, experts));
}

}  // namespace epsim
