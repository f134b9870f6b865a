#include "policies/placement/shared/coactivation.h"

#include <gtest/gtest.h>

namespace epsim {
namespace {

TEST(Coactivation, CountsTokensThatChoseBothOverAllBatches) {
  Routing a;
  a.experts = 4, a.top_k = 3;
  a.first_token = {0, 1, 2};
  a.expert = {0, 1, 2, 2, 0, 3};
  Routing b = a;
  b.first_token = {0, 1, 1};
  b.expert = {1, 0, 3};
  Problem p;
  p.experts = 4;
  p.tokens = {{}, {std::make_shared<Routing>(a), std::make_shared<Routing>(b)}};
  const Matrix<std::int64_t> pairs = coactivation(p, 1);
  EXPECT_EQ(pairs.cells, (std::vector<std::int64_t>{0, 2, 2, 2,  //
                                                    2, 0, 1, 1,  //
                                                    2, 1, 0, 1,  //
                                                    2, 1, 1, 0}));
  EXPECT_EQ(coactivation(p, 0), Matrix<std::int64_t>(4, 4)) << "no batches";
}

}  // namespace
}  // namespace epsim
