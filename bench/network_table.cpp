// network_table [--quick] [--reuse] [--lines PART]... [--simgrid PROGRAM]: times the network models side by side with SimGrid, each all-to-all in a process of its own, and prints a table in Markdown.
// CPU seconds are user time (a machine is rarely idle): the median of three runs; below 50 ms each run is 20 processes, and system time counts too; what takes over 10 s runs once.
// What SimGrid took and said is kept beside this program; --reuse takes it from there where it is.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "bench/doubles.h"
#include "bench/matrices.h"

namespace epsim::bench {
namespace {

struct Line {
  std::string name;
  int ranks;
  Sizes sizes;
  std::string cluster;              // YAML
  std::string network;              // YAML
  std::string platform;             // of SimGrid; empty: not compared
  double simgrid_seconds = 0;       // about what it takes there, for --quick
  std::string exact;                // the line whose times are right, where this one's are not
};

std::string star(int n) { return fmt::format("{{single_switch: {{ranks: {}, ranks_per_node: 1, device: h100, bandwidth: 50GB/s, latency: 0us}}}}", n); }

/// Two levels, 16 hosts a leaf, 16 spines; rank d is reached through spine d mod 16.
std::string fat_tree(int n, std::string_view hop) {
  return fmt::format("{{fat_tree: {{nodes: {}, device: h100, nodes_per_leaf: 16, spines: 16, nic_bandwidth: 50GB/s, nic_latency: {}, switch_latency: {}}}}}", n, hop, hop);
}

std::vector<Line> lines() {
  std::vector<Line> all;
  const auto name = [](std::string_view text, int n) { return fmt::format("{} {}", text, n); };
  for (const auto& [n, seconds] : {std::pair(256, 5), std::pair(512, 63)}) all.push_back({name("uniform star", n), n, Sizes::uniform, star(n), "fair", fmt::format("star:{}:50e9:0", n), double(seconds), ""});
  for (const auto& [n, seconds] : {std::pair(64, 0.1), std::pair(96, 0.4), std::pair(256, 13.0)})
    all.push_back({name("Zipf fat tree", n), n, Sizes::zipf, fat_tree(n, "0us"), "fair", fmt::format("fat_tree:{}:50e9:0", n), seconds, ""});
  all.push_back({name("Zipf fat tree", 1024), 1024, Sizes::zipf, fat_tree(1024, "0us"), "fair", "", 0, ""});
  for (const auto& [n, seconds] : {std::pair(64, 0.5), std::pair(96, 5.0), std::pair(256, 0.0), std::pair(512, 0.0), std::pair(1024, 0.0)})
    all.push_back({name("Zipf fat tree, CM02 weights, 0.5 us a hop", n), n, Sizes::zipf, fat_tree(n, "500ns"), "{fair: {weights: cm02}}", seconds > 0 ? fmt::format("fat_tree:{}:50e9:5e-7", n) : "", seconds, ""});
  for (const auto& [n, seconds] : {std::pair(64, 2.0), std::pair(96, 19.0), std::pair(128, 65.0), std::pair(256, 0.0), std::pair(512, 0.0)})
    all.push_back({name("log-normal fat tree", n), n, Sizes::log_normal, fat_tree(n, "0us"), "fair", seconds > 0 ? fmt::format("fat_tree:{}:50e9:0", n) : "", seconds, ""});
  for (const int n : {256, 512, 1024})
    all.push_back({name("log-normal fat tree, tolerance 1e-3", n), n, Sizes::log_normal, fat_tree(n, "0us"), "{fair: {tolerance: 1e-3}}", "", 0, n < 1024 ? name("log-normal fat tree", n) : ""});
  for (const int n : {1024, 4096}) all.push_back({name("uniform fat tree", n), n, Sizes::uniform, fat_tree(n, "0us"), "fair", "", 0, ""});
  all.push_back({"log-normal fat tree of 3 tiers 256", 256, Sizes::log_normal, "{fat_tree: {nodes: 256, tiers: 3, nodes_per_leaf: 16, leaves_per_pod: 4, device: h100}}", "fair", "", 0, ""});
  all.push_back({"log-normal dragonfly 256", 256, Sizes::log_normal, "{dragonfly: {groups: 8, routers_per_group: 8, hosts_per_router: 4, device: h100}}", "fair", "", 0, ""});
  all.push_back({"log-normal NVLink and rails 256", 256, Sizes::log_normal, "{rail_fat_tree: {nodes: 32, ranks_per_node: 8, device: h100, nodes_per_leaf: 16}}", "fair", "", 0, ""});
  return all;
}

struct Measured {
  double user = 0, mib = 0;
  std::vector<double> times;
};

class Table {
 public:
  Table(std::filesystem::path programs, std::string simgrid, bool quick, bool reuse)
      : programs_(std::move(programs)), kept_(programs_ / "simgrid-results"), simgrid_(std::move(simgrid)), quick_(quick), reuse_(reuse) {
    std::filesystem::create_directories(kept_);
    std::string pattern = (std::filesystem::temp_directory_path() / "epsim-bench-XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw std::runtime_error("cannot make a folder for the matrices");
    folder_ = pattern;
  }
  ~Table() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  void head() const {
    std::cout << "| all-to-all, ranks | SimGrid Full, s | Lazy, s | epsim, s | times faster | SimGrid, MiB | epsim, MiB | differs from Full | from Lazy |\n"
                 "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
  }

  void print(const Line& line) {
    write_doubles(folder_ / "bytes", matrix(line.ranks, line.sizes));
    const std::optional<Measured> ours = measure({programs_ / "network_run", line.cluster, line.network, folder_ / "bytes", folder_ / "times"}, 3);
    std::optional<Measured> full, lazy;
    if (!line.platform.empty() && !simgrid_.empty()) {
      full = simgrid(line, "Full");
      lazy = simgrid(line, "Lazy");
    }
    const auto number = [](const std::optional<Measured>& m, double Measured::* what) { return m ? fmt::format("{:.3g}", (*m).*what) : std::string("-"); };
    const double best = std::min(full ? full->user : 1e300, lazy ? lazy->user : 1e300);
    std::cout << fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} | {} |", line.name, number(full, &Measured::user), number(lazy, &Measured::user),
                             ours ? number(ours, &Measured::user) : "not available", ours && best < 1e300 ? fmt::format("{:.0f}", best / ours->user) : "-", number(full, &Measured::mib),
                             number(ours, &Measured::mib), difference(ours, full), difference(ours, lazy))
              << std::endl;
    if (!ours) return;
    if (const auto exact = times_.find(line.exact); exact != times_.end()) errors_ += errors(line, ours->times, exact->second);
    seconds_[line.name] = ours->user;
    times_[line.name] = ours->times;
  }

  void foot() const {
    std::cout << errors_;
    growth("Zipf fat tree", 256, 1024);
    growth("log-normal fat tree", 256, 512);
  }

 private:
  /// The median of `runs` by user time; nothing where the program does not know what it is asked for.
  std::optional<Measured> measure(const std::vector<std::string>& command, int runs) const {
    std::string text;
    for (const std::string& word : command) text += fmt::format(" '{}'", word);  // no argument of ours has a quote
    std::vector<Measured> all;
    for (int repeats = 1; static_cast<int>(all.size()) < runs;) {
      std::FILE* pipe = popen(fmt::format("'{}' {}{} 2>'{}'", (programs_ / "measure").string(), repeats, text, (folder_ / "problems").string()).c_str(), "r");
      if (!pipe) throw std::runtime_error("cannot run " + command[0]);
      Measured m;
      double system = 0;
      const int read = std::fscanf(pipe, "%lf %lf %lf", &m.user, &system, &m.mib);
      const int status = pclose(pipe);
      if (WIFEXITED(status) && WEXITSTATUS(status) == 2) return {};
      if (status != 0 || read != 3) throw std::runtime_error("failed:" + text);
      if (repeats == 1 && m.user < 0.05) {
        repeats = 20;
        continue;
      }
      // The kernel splits so little by the luck of its clock.
      if (repeats > 1) m.user += system;
      all.push_back(m);
      if (m.user > 10) break;
    }
    std::sort(all.begin(), all.end(), [](const Measured& a, const Measured& b) { return a.user < b.user; });
    Measured median = all[all.size() / 2];
    median.times = read_doubles(folder_ / "times");
    return median;
  }

  std::optional<Measured> simgrid(const Line& line, const std::string& mode) const {
    const std::string kept = kept_ / fmt::format("{} {}", line.name, mode);
    if (reuse_ && std::filesystem::exists(kept + ".cost")) {
      const std::vector<double> cost = read_doubles(kept + ".cost");
      return Measured{cost[0], cost[1], read_doubles(kept + ".times")};
    }
    if (quick_ && line.simgrid_seconds > 10) return {};
    // The same model as ours: no load on the way back.
    std::optional<Measured> m =
        measure({simgrid_, line.platform, folder_ / "bytes", folder_ / "times", "--cfg=network/model:CM02", "--cfg=network/optim:" + mode, "--cfg=network/crosstraffic:0", "--log=root.thres:critical"}, 3);
    if (m) write_doubles(kept + ".times", m->times), write_doubles(kept + ".cost", {m->user, m->mib});
    return m;
  }

  static std::string difference(const std::optional<Measured>& ours, const std::optional<Measured>& theirs) {
    if (!ours || !theirs) return "-";
    double most = 0;
    for (std::size_t i = 0; i < ours->times.size(); ++i)
      if (theirs->times[i] > 0) most = std::max(most, std::abs(ours->times[i] / theirs->times[i] - 1));
    return fmt::format("{:.1e}", most);
  }

  static std::string errors(const Line& line, const std::vector<double>& times, const std::vector<double>& exact) {
    std::vector<double> all;
    for (std::size_t i = 0; i < times.size(); ++i)
      if (exact[i] > 0) all.push_back(std::abs(times[i] / exact[i] - 1));
    std::sort(all.begin(), all.end());
    const double last = *std::max_element(times.begin(), times.end()) / *std::max_element(exact.begin(), exact.end()) - 1;
    return fmt::format("\n{}: relative errors of the finish times against the exact run: 99 % within {:.1e}, the largest {:.1e}, that of the last {:.1e}.\n", line.name, all[all.size() * 99 / 100], all.back(), std::abs(last));
  }

  void growth(const std::string& name, int from, int to) const {
    const auto a = seconds_.find(fmt::format("{} {}", name, from)), b = seconds_.find(fmt::format("{} {}", name, to));
    if (a != seconds_.end() && b != seconds_.end())
      std::cout << fmt::format("\n{}, epsim, {} to {} ranks: user time grows with N^{:.2f}.\n", name, from, to, std::log(b->second / a->second) / std::log(static_cast<double>(to) / from));
  }

  std::filesystem::path programs_, kept_, folder_;
  std::string simgrid_;
  bool quick_, reuse_;
  std::map<std::string, double> seconds_;
  std::map<std::string, std::vector<double>> times_;
  std::string errors_;
};

void run(const std::filesystem::path& programs, const std::vector<std::string>& arguments) {
  bool quick = false, reuse = false;
  std::string simgrid;
  std::vector<std::string> wanted;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const auto value = [&] { return i + 1 < arguments.size() ? arguments[++i] : throw std::runtime_error(arguments[i] + " needs a value"); };
    if (arguments[i] == "--quick") quick = true;
    else if (arguments[i] == "--reuse") reuse = true;
    else if (arguments[i] == "--simgrid") simgrid = value();
    else if (arguments[i] == "--lines") wanted.push_back(value());
    else throw std::runtime_error("usage: network_table [--quick] [--reuse] [--lines PART]... [--simgrid PROGRAM]");
  }
  Table table(programs, simgrid, quick, reuse);
  table.head();
  for (const Line& line : lines())
    if (wanted.empty() || std::any_of(wanted.begin(), wanted.end(), [&](const std::string& part) { return line.name.find(part) != std::string::npos; })) table.print(line);
  table.foot();
}

}  // namespace
}  // namespace epsim::bench

int main(int count, char** argument) {
  try {
    epsim::bench::run(std::filesystem::canonical("/proc/self/exe").parent_path(), {argument + 1, argument + count});
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "network_table: " << e.what() << "\n";
    return 1;
  }
}
