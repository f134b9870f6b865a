// SimGrid's MPI as an oracle of whole exchanges: an MPI program (bench/simgrid/alltoallv.cpp) on the same machine and matrix takes as long as `epsim alltoall` says. Skips where SimGrid is not installed.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <ostream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "bench/doubles.h"
#include "tests/support/part_from_yaml.h"
#include "tests/support/program.h"
#include "topology/topology.h"

namespace epsim::testing {
namespace {

constexpr double kWithin = 1e-3;  // MPI adds a few small messages of its own

/// The links of a machine and the path of each pair of ranks, as SimGrid reads them.
std::string platform_xml(const Topology& t) {
  std::string out = "<?xml version='1.0'?>\n<!DOCTYPE platform SYSTEM \"https://simgrid.org/simgrid.dtd\">\n<platform version=\"4.1\">\n<zone id=\"z\" routing=\"Full\">\n";
  for (int r = 0; r < t.ranks(); ++r) out += fmt::format("<host id=\"h{}\" speed=\"1Gf\"/>\n", r);
  for (std::size_t l = 0; l < t.links().size(); ++l) out += fmt::format("<link id=\"l{}\" bandwidth=\"{}Bps\" latency=\"{}s\"/>\n", l, t.links()[l].bandwidth, t.links()[l].latency.seconds());
  for (const Rank s : ids<Rank>(t.ranks()))
    for (const Rank d : ids<Rank>(t.ranks())) {
      if (s == d) continue;
      out += fmt::format("<route src=\"h{}\" dst=\"h{}\" symmetrical=\"NO\">", s.value, d.value);
      t.for_each_link(s, d, [&](std::int32_t l) { out += fmt::format("<link_ctn id=\"l{}\"/>", l); });
      out += "</route>\n";
    }
  return out + "</zone>\n</platform>\n";
}

struct Case {
  const char *name, *cluster;  // YAML of 8 ranks, the same latency on every path: SimGrid shares by latency
  bool uneven;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class Smpi : public ::testing::TestWithParam<Case> {
 protected:
  Smpi() : work_("epsim_smpi"), bytes_(64) {
    Rng rng(8, Stream::test);
    for (std::size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = i % 9 == 0 ? 0 : std::round(1e6 * (GetParam().uneven ? std::exp(0.7 * rng.normal()) : 1));
  }
  void SetUp() override {
    if (std::string(EPSIM_SMPI_PROGRAM).empty()) GTEST_SKIP() << "SimGrid's SMPI is not installed (libsimgrid-dev; tools/setup): exchanges are not compared with MPI's on a simulated network";
  }

  /// When each rank has received all, in seconds.
  std::vector<double> theirs(const std::string& exchange) const {
    std::string hosts;
    for (int r = 0; r < 8; ++r) hosts += fmt::format("h{}\n", r);
    bench::write_doubles((work_.root / "bytes").string(), bytes_);
    // The network's own speed: no factors that stand for one MPI on one network, no load on the way back, nothing for the program's own computing and its looks at the clock.
    const std::string command = std::string("'" EPSIM_SMPI_LAUNCHER "' -np 8 -hostfile '") + work_.write("hosts", hosts) + "' -platform '" +
                                work_.write("platform.xml", platform_xml(part_from_yaml(builtin_clusters(), GetParam().cluster))) +
                                "' --log=root.thres:critical --cfg=smpi/simulate-computation:no --cfg=smpi/wtime:0 --cfg=network/crosstraffic:0 --cfg=network/optim:Full --cfg=network/weight-S:0"
                                " --cfg=smpi/bw-factor:0:1 --cfg=smpi/lat-factor:0:1 '" EPSIM_SMPI_PROGRAM "' " +
                                exchange + " '" + (work_.root / "bytes").string() + "' '" + (work_.root / "times").string() + "'";
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
    return bench::read_doubles((work_.root / "times").string());
  }

  Outcome ours(const std::string& exchange) const {
    std::string matrix;
    for (std::size_t i = 0; i < bytes_.size(); ++i) matrix += format_number(bytes_[i]) + (i % 8 == 7 ? "\n" : ",");
    return run_program({"alltoall", "--cluster", GetParam().cluster, "--matrix", work_.write("matrix.csv", matrix), "--exchange", exchange, "--format", "json"});
  }

  /// `each`: every rank has all at the same time; else the last rank has, and an MPI program may notice later than it came.
  void expect_agreement(const std::string& exchange, bool each) const {
    const Outcome o = ours(exchange);
    ASSERT_EQ(o.status, 0) << o.err;
    const auto mine = nlohmann::json::parse(o.out)["rank_finish_s"].get<std::vector<double>>();
    const std::vector<double> expected = theirs(exchange);
    const double last = *std::max_element(expected.begin(), expected.end());
    EXPECT_NEAR(*std::max_element(mine.begin(), mine.end()), last, kWithin * last);
    for (std::size_t r = 0; r < expected.size(); ++r) {
      EXPECT_LE(mine[r], expected[r] * (1 + kWithin)) << "rank " << r;
      EXPECT_GE(mine[r], each ? expected[r] * (1 - kWithin) : 0) << "rank " << r;
    }
  }

  Workspace work_;
  std::vector<double> bytes_;
};

constexpr const char *kStar = "{single_switch: {ranks: 8, device: h100, bandwidth: 200MB/s, latency: 5us}}",
                     *kTree = "{two_tier: {nodes: 2, ranks_per_node: 4, device: h100, bandwidth: 200MB/s, latency: 5us, uplink: 300MB/s, uplink_latency: 0us}}";
INSTANTIATE_TEST_SUITE_P(Machines, Smpi, ::testing::Values(Case{"star", kStar, false}, Case{"uneven_star", kStar, true}, Case{"tree", kTree, false}, Case{"uneven_tree", kTree, true}),
                         [](const auto& i) { return std::string(i.param.name); });

TEST_P(Smpi, DirectTakesAsLong) { expect_agreement("direct", true); }

TEST_P(Smpi, PairwiseTakesAsLong) {
  expect_agreement("pairwise", false);  // a rank looks at its last receive when it is done with what it sent before
}

}  // namespace
}  // namespace epsim::testing
