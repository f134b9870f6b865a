// `epsim compare`: what it says beside its figures, and when it fails.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "tests/support/program.h"

namespace epsim {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Outcome;
using testing::run_program;

const std::string kExamples = std::string(EPSIM_SOURCE_DIR) + "/examples/";

TEST(CompareVerb, FailsWhereAMoveNeverPays) {
  const std::vector<std::string> arguments = {"compare", kExamples + "migration.yaml", "--set", "batches=4", "--set", "layers=0", "--set", "rebalance.every=2", "--over", "placement={eplb: {slots: 48}},{flashlb: {slots: 48}}", "--format", "json", "--fail-above", "break_even_batches=1e9"};
  const Outcome run = run_program(arguments);
  int never = 0;
  const Json points = Json::parse(run.out).at("points");
  for (const Json& point : points) never += point.at("break_even_batches") == "never";
  ASSERT_GE(never, 1) << "the case does not say what it should";
  EXPECT_EQ(run.status, 1);
  EXPECT_THAT(run.err, HasSubstr("break_even_batches is never at {eplb: {slots: 48}}, above 1000000000"));
}

}  // namespace
}  // namespace epsim
