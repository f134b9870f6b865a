#include "base/parallel.h"

#include <cstdlib>
#include <memory>

#include "base/check.h"
#include "base/units.h"

namespace epsim {

int thread_count() {
  const char* wish = std::getenv("EPSIM_THREADS");
  if (!wish || !*wish) return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const auto n = parse_integer(wish);
  if (!n || *n < 1 || *n > 256)
    throw InputError({std::make_shared<SourceText>(SourceText{"EPSIM_THREADS", wish}), 1, 1}, "the number of threads must be an integer from 1 to 256");
  return static_cast<int>(*n);
}

}  // namespace epsim
