// Another simulator as an oracle: SimGrid 3.32's flow-level model CM02 (Casanova et al., "Versatile, scalable, and accurate simulation of distributed applications and platforms", JPDC 2014) on the same links, routes and bytes.
// It runs in a process of its own (bench/simgrid/simgrid_run.cpp); where SimGrid is not installed these tests skip. Messages that share links must have paths of equal latency under `fair`: CM02 shares by latency.
#include <cstdlib>
#include <fstream>

#include <gtest/gtest.h>

#include "bench/doubles.h"
#include "tests/support/machines.h"
#include "tests/support/network_rig.h"
#include "tests/support/part_from_yaml.h"
#include "tests/support/program.h"

namespace epsim::testing {
namespace {

const std::string kProgram = EPSIM_SIMGRID_RUN;

template <class T>
void put(std::ofstream& out, T value) {
  out.write(reinterpret_cast<const char*>(&value), sizeof value);
}

/// The links of a machine and the path of each pair of ranks, as simgrid_run reads them.
void write_routes(const std::string& path, const Topology& t) {
  std::ofstream out(path, std::ios::binary);
  put<std::int32_t>(out, t.ranks());
  put(out, static_cast<std::int32_t>(t.links().size()));
  for (const Link& l : t.links()) put(out, l.bandwidth), put(out, l.latency.seconds());
  for (const Rank s : ids<Rank>(t.ranks()))
    for (const Rank d : ids<Rank>(t.ranks())) {
      std::vector<std::int32_t> path_links;
      t.for_each_link(s, d, [&](std::int32_t l) { path_links.push_back(l); });
      put(out, static_cast<std::int32_t>(path_links.size()));
      for (const std::int32_t l : path_links) put(out, l);
    }
}

/// When the messages of a matrix of bytes [source][destination] that all begin at 0 arrive, in seconds, says SimGrid.
std::vector<double> simgrid_times(const Topology& t, const std::vector<double>& bytes) {
  const Workspace work("epsim_simgrid");
  const std::string folder = work.root.string();
  write_routes(folder + "/routes", t);
  bench::write_doubles(folder + "/bytes", bytes);
  // Full: the default, Lazy, is off by 1e-6. Without crosstraffic: that is the load of acknowledgements on the way back, which we do not model.
  const std::string command = "'" + kProgram + "' '" + folder + "/routes' '" + folder + "/bytes' '" + folder +
                              "/times' --cfg=network/model:CM02 --cfg=network/optim:Full --cfg=network/crosstraffic:0 --cfg=network/TCP-gamma:0 --log=root.thres:critical";
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
  return bench::read_doubles(folder + "/times");
}

/// Switches joined by a random tree and `extra` more cables, two to four ranks at each; a rank's own links have `latency`, the others `inner`.
Topology random_graph(Rng& rng, int switches, int extra, Time latency, Time inner) {
  MachineBuilder b;
  const auto rate = [&] { return rng.below(2) ? 1e9 : log_uniform(rng, 2e8, 1e10); };
  std::vector<int> home;
  for (int s = 0; s < switches; ++s)
    for (std::uint64_t i = 0; i < 2 + rng.below(3); ++i) home.push_back(s);
  for (const int s : home) b.rank(s);
  std::vector<int> hub;
  for (int s = 0; s < switches; ++s) hub.push_back(b.a_switch());
  for (std::size_t r = 0; r < home.size(); ++r) b.link(static_cast<int>(r), hub[home[r]], rate(), latency), b.link(hub[home[r]], static_cast<int>(r), rate(), latency);
  for (int s = 1; s < switches + extra; ++s) {
    const int a = s < switches ? s : static_cast<int>(rng.below(switches)), other = static_cast<int>(rng.below(s < switches ? s : switches));
    if (a != other) b.cable(hub[a], hub[other], rate(), inner);
  }
  return b.build();
}

Topology machine(Rng& rng, std::uint64_t run, Time latency, Time inner) {
  switch (run % 5) {
    case 0: return star(4 + static_cast<int>(rng.below(12)), 1e9, latency);
    case 1: return random_graph(rng, 2 + static_cast<int>(rng.below(6)), 0, latency, inner);
    case 2: return random_graph(rng, 4 + static_cast<int>(rng.below(4)), 6, latency, inner);
    default: {  // a fat tree of two levels, full or thin at the top
      MachineBuilder b;
      const int leaves = 2 + static_cast<int>(rng.below(3)), hosts = 2 + static_cast<int>(rng.below(4)), spines = 1 + static_cast<int>(rng.below(hosts));
      for (int r = 0; r < leaves * hosts; ++r) b.rank(r);
      for (int l = 0; l < leaves; ++l) {
        const int leaf = b.a_switch();
        for (int h = 0; h < hosts; ++h) b.cable(l * hosts + h, leaf, 1e9, latency);
      }
      for (int s = 0; s < spines; ++s) {
        const int spine = b.a_switch();
        for (int l = 0; l < leaves; ++l) b.cable(leaves * hosts + l, spine, 1e9, inner);
      }
      return b.build();
    }
  }
}

/// Uniform; by destination, few hot; every pair its own; every pair its own and most empty.
std::vector<double> matrix(Rng& rng, std::uint64_t kind, int ranks) {
  std::vector<double> bytes;
  for (int s = 0; s < ranks; ++s)
    for (int d = 0; d < ranks; ++d) {
      const double share = kind == 0 ? 1 : kind == 1 ? 4.0 / (d + 1) : kind == 2 || rng.below(4) == 0 ? std::exp(rng.normal()) : 0;
      bytes.push_back(s == d ? 0 : std::round(1e6 * share));
    }
  return bytes;
}

void expect_agreement(const Topology& t, const std::vector<double>& bytes, const std::string& network, const std::string& name) {
  NetworkRig rig(part_from_yaml(builtin_networks(), network), t);
  std::vector<std::size_t> cell;
  for (int s = 0; s < t.ranks(); ++s)
    for (int d = 0; d < t.ranks(); ++d)
      if (const std::size_t i = static_cast<std::size_t>(s) * static_cast<std::size_t>(t.ranks()) + static_cast<std::size_t>(d); bytes[i] > 0) {
        rig.send(0, s, d, bytes[i]);
        cell.push_back(i);
      }
  const std::vector<double> expected = simgrid_times(t, bytes);
  for (std::size_t m = 0; m < cell.size(); ++m) ASSERT_NEAR(rig.arrivals()[m], expected[cell[m]], 1e-9 * expected[cell[m]]) << name << ", cell " << cell[m];
}

class SimGrid : public ::testing::Test {
 protected:
  void SetUp() override {
    if (kProgram.empty()) GTEST_SKIP() << "SimGrid is not installed (libsimgrid-dev; tools/setup): our times are not compared with another simulator's";
  }
};

TEST_F(SimGrid, FairSharesAgree) {
  for (std::uint64_t run = 0; run < 20; ++run) {
    Rng rng(6, Stream::test, run);
    // Every second machine has latency, the same on every path.
    const Topology t = machine(rng, run, Time{run % 2 ? 700'000 : 0}, {});
    expect_agreement(t, matrix(rng, run / 5, t.ranks()), "fair", "run " + std::to_string(run));
    if (HasFatalFailure()) return;
  }
}

// CM02's own fairness: shares in inverse proportion to the latency of the path, and a message takes part from its latency on.
TEST_F(SimGrid, SharesByLatencyAgree) {
  const std::string network = "{fair: {weights: cm02}}";
  if (!input_error([&] { part_from_yaml(builtin_networks(), network); }).empty()) GTEST_SKIP() << network << " is not there yet";
  for (std::uint64_t run = 0; run < 20; ++run) {
    Rng rng(7, Stream::test, run);
    const Topology t = machine(rng, run, Time{500'000}, Time{run % 2 ? 500'000 : 1'300'000});
    expect_agreement(t, matrix(rng, run / 5, t.ranks()), network, "run " + std::to_string(run));
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace epsim::testing
