#include "base/parallel.h"

#include <gmock/gmock.h>

#include <cstdlib>

namespace epsim {
namespace {

using testing::Each;

std::vector<int> threads_inside(std::int64_t items) {
  std::vector<int> threads(static_cast<std::size_t>(items));
  parallel_for(items, [&](std::int64_t i) { threads[static_cast<std::size_t>(i)] = ThreadShare::here(); });
  return threads;
}

TEST(ParallelFor, LeavesToInnerLoopsTheThreadsThatItDoesNotUse) {
  const char* before = std::getenv("EPSIM_THREADS");
  const std::string saved = before ? before : "";
  ::setenv("EPSIM_THREADS", "4", 1);
  EXPECT_THAT(threads_inside(1), Each(4));
  EXPECT_THAT(threads_inside(2), Each(2));
  EXPECT_THAT(threads_inside(9), Each(1));
  std::vector<std::vector<int>> inner(2);
  parallel_for(2, [&](std::int64_t i) { inner[static_cast<std::size_t>(i)] = threads_inside(2); });
  EXPECT_THAT(inner, Each(Each(1)));
  EXPECT_EQ(ThreadShare::here(), 4) << "all of them again, once a loop is done";
  before ? ::setenv("EPSIM_THREADS", saved.c_str(), 1) : ::unsetenv("EPSIM_THREADS");
}

TEST(ParallelFor, HandsOnWhatAnItemThrows) {
  EXPECT_THROW(parallel_for(5, [](std::int64_t i) { if (i == 3) throw 7; }), int);
  EXPECT_EQ(ThreadShare::here(), thread_count());
}

}  // namespace
}  // namespace epsim
