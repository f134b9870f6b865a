// placement_table [--quick] [--exchange YAML] [--lines PART]...: epsim_opt against every other placement policy, planned on some batches and judged on others, as a table in Markdown (tools/bench placements).
// Cases are the trace of examples/, synthetic loads and, where EPSIM_TEST_DATA names a folder with `traces` and `loads`, recordings; --quick plays every sixth. A finished row is kept beside this program, for this program and
// this case: who is interrupted goes on from there, and the same program gives the same table.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <set>
#include <sstream>
#include <tuple>

#include <fmt/format.h>

#include "analysis/compare.h"
#include "cli/play_all.h"

namespace epsim::bench {
namespace {

constexpr const char* kUs = "epsim_opt";

/// Batches that placements are planned on, and those that judge them.
struct Round {
  const char *planned, *judged;
  int seed = 42;
};

/// How a case is judged: by as much as there is, so that chance decides little.
struct Judging {
  int batches;
  std::vector<Round> rounds;
  const char* in_sample;  ///< of the first round: as many batches as it plans on
};
const Judging kRecorded = {8, {{"0:4", "4:8"}, {"4:8", "0:4"}}, "4:8"};  // either half judges what was planned on the other
const Judging kSteady = {68, {{"0:4", "4:68"}}, "4:8"};                  // drawn anew each batch, always as popular
const Judging kSteadyLong = {72, {{"0:8", "8:72"}}, "8:16"};
const Judging kDrifting = {16, {{"0:8", "8:16", 42}, {"0:8", "8:16", 43}, {"0:8", "8:16", 44}, {"0:8", "8:16", 45}, {"0:8", "8:16", 46}, {"0:8", "8:16", 47}}, "8:16"};

struct Case {
  std::string name;
  std::string experiment;  // YAML
  int slots;
  const Judging* judging;
};

/// Clusters by what a line calls them.
const std::vector<std::pair<std::string, std::string>> kMachines = {
    {"2 x 4 H800", "nodes: 2, ranks_per_node: 4, device: h800"}, {"8 H800", "nodes: 1, ranks_per_node: 8, device: h800"}, {"4 x 4 H100", "nodes: 4, ranks_per_node: 4, device: h100"}, {"4 H800", "nodes: 1, ranks_per_node: 4, device: h800"}};

/// With one slot a rank placements differ by the names of ranks alone, so there are two or more.
std::vector<Case> cases(const std::string& exchange) {
  std::vector<Case> all;
  const auto add = [&](std::string name, int machine, std::string model, std::string layers, std::string source, const Judging& judging, int slots) {
    const auto& [called, cluster] = kMachines[static_cast<std::size_t>(machine)];
    all.push_back({fmt::format("{}, {}", name, called),
                   fmt::format("model: {}\nlayers: {}\ncluster: {{rail_fat_tree: {{{}}}}}\nsource: {{{}}}\nexchange: {}\nbatches: {}\n", model, layers, cluster, source, exchange, judging.batches), slots, &judging});
  };
  const char* folder = std::getenv("EPSIM_TEST_DATA");
  const std::string data = folder ? folder : "";
  const auto recorded = [&](const std::string& file) { return !data.empty() && std::filesystem::exists(data + "/" + file); };
  for (const std::string text : {"facts", "engineering", "instructions"})
    for (const int machine : {0, 1, 2})
      for (const int slots : {32, 40, 48})
        if (const std::string file = fmt::format("traces/gpt-oss-20b-{}.npz", text); recorded(file) && (machine < 2 || slots % 16 == 0))
          add("gpt-oss-20b " + text, machine, "gpt-oss-20b", "0-23", fmt::format("trace: {{file: {}/{}}}", data, file), kRecorded, slots);
  for (const int machine : {0, 1, 2})
    for (const int slots : {16, 24, 32})
      if (machine < 2 || slots == 32) add("trained", machine, "examples/models/wide-16.json", "[0, 1]", "trace: {file: examples/traces/text.npz}", kRecorded, slots);
  for (const std::string text : {"mixtral-8x7b-c4", "mixtral-8x7b-github"})
    for (const int slots : {8, 16})
      if (const std::string file = fmt::format("loads/{}.json", text); recorded(file))
        add(text, 3, "mixtral-8x7b", "[0, 7, 15]", fmt::format("loads: {{file: {}/{}, tokens_per_rank: 512, repeat: true}}", data, file), kSteady, slots);
  for (const std::string text : {"olmoe-1b-7b-c4", "olmoe-1b-7b-arxiv"})
    for (const int machine : {0, 1})
      for (const int slots : {64, 72, 96})
        if (const std::string file = fmt::format("loads/{}.json", text); recorded(file))
          add(text, machine, "olmoe-1b-7b", "[0, 7, 15]", fmt::format("loads: {{file: {}/{}, tokens_per_rank: {}, repeat: true}}", data, file, machine == 0 ? 512 : 128), kSteady, slots);
  const std::set<std::string> steady = {"hot set W1", "zipf"};
  for (const auto& [name, source] : {std::pair("drift", "drift: {memory: 32, "), std::pair("topics", "topics: {topics: 3, every: 2, "), std::pair("rotating", "rotating: {sigma: 0.8, "),
                                     std::pair("hot set W1", "imbalance: {preset: W1, "), std::pair("burst", "burst: {sigma: 0.6, "), std::pair("zipf", "zipf: {")})
    for (const int slots : {64, 80, 96}) add(fmt::format("deepseek-v2-lite {}", name), 2, "deepseek-v2-lite", "1-6", fmt::format("{}tokens_per_rank: 256}}", source), steady.contains(name) ? kSteadyLong : kDrifting, slots);
  return all;
}

/// Policies that others deploy: not one that needs every expert everywhere, the oracle of loads, and placements from files.
std::vector<std::string> others() {
  std::vector<std::string> names = builtin_placements().names();
  std::erase_if(names, [](const std::string& name) { return std::set<std::string>{kUs, "force_balanced", "least_load", "given"}.contains(name); });
  return names;
}

std::string with_slots(const std::string& policy, int slots, const char* more = "") { return fmt::format("{{{}: {{slots: {}{}}}}}", policy, slots, more); }

struct Row {
  double ours_s = 0, best_s = 0, half_width = 0, gap = 0;
  double oracle_s = 0, oracle_gap = 0;  ///< one placement, planned on the batches that it is judged by
  double each_s = 0, each_gap = 0;      ///< each batch has its own, planned on it, as the bound of each batch allows
  std::map<std::string, double> others_s;  ///< of all others that are not left out
  std::string best, left_out;  // names; those left out with commas

  double behind() const { return ours_s / best_s - 1; }
  bool lowest() const { return behind() <= 1e-9; }
};

Row play(const Case& c, const Catalogs& catalogs) {
  const auto file = std::make_shared<SourceText>(SourceText{"placement_table", c.experiment});
  std::vector<Experiment> experiments;
  std::vector<std::string> names;
  std::vector<std::size_t> rounds;  // [names] experiments
  const auto read = [&](const std::string& name, const std::string& placement, const std::vector<Round>& of, const std::vector<std::string>& more = {}) {
    std::vector<Experiment> all;
    for (const Round& round : of) {
      std::vector<std::string> settings = {"placement=" + placement, fmt::format("fit='{}'", round.planned), fmt::format("eval='{}'", round.judged), fmt::format("seed={}", round.seed)};
      settings.insert(settings.end(), more.begin(), more.end());
      all.push_back(read_experiment(file, settings, catalogs));
    }
    experiments.insert(experiments.end(), all.begin(), all.end());
    names.push_back(name), rounds.push_back(all.size());
  };
  const std::string in_sample = with_slots(kUs, c.slots, ", generalise: false");
  const std::vector<Round> itself = {{c.judging->in_sample, c.judging->in_sample}};
  read(kUs, with_slots(kUs, c.slots), c.judging->rounds);
  read("oracle", in_sample, itself);
  read("each batch", in_sample, itself, {"rebalance={statistics: exact, every: 1, moving: free}"});
  for (const std::string& name : others()) {
    try {
      read(name, with_slots(name, c.slots), c.judging->rounds);
    } catch (const InputError&) {
      read(name, name, c.judging->rounds);  // it has no such setting
    }
  }
  std::vector<RunMetrics> runs = play_all(experiments);
  std::vector<ComparedPoint> points;
  for (auto [i, run] = std::pair(std::size_t{0}, runs.begin()); i < names.size(); run += static_cast<std::ptrdiff_t>(rounds[i++]))
    points.push_back(compared_point({}, {std::make_move_iterator(run), std::make_move_iterator(run + static_cast<std::ptrdiff_t>(rounds[i]))}));
  const auto gap_of = [](const ComparedPoint& p) { return gap(p.layers_s, p.optimum_s * static_cast<double>(p.samples_s.size())); };

  Row row;
  row.ours_s = points[0].total_s, row.gap = gap_of(points[0]), row.oracle_s = points[1].total_s, row.oracle_gap = gap_of(points[1]), row.each_s = points[2].total_s, row.each_gap = gap_of(points[2]);
  const double even = points[static_cast<std::size_t>(std::ranges::find(names, "contiguous") - names.begin())].max_rank_weights_bytes;
  const ComparedPoint* best = nullptr;
  for (std::size_t i = 3; i < points.size(); ++i) {
    if (points[i].max_rank_weights_bytes > even * 1.0001) {
      row.left_out += (row.left_out.empty() ? "" : ", ") + names[i];
      continue;
    }
    row.others_s[names[i]] = points[i].total_s;
    if (!best || points[i].total_s < best->total_s) best = &points[i], row.best = names[i];
  }
  row.best_s = best->total_s, row.half_width = difference(points[0], *best).half_width;
  return row;
}

/// Rows that are finished, each in a file named for the program and the case.
class Kept {
 public:
  explicit Kept(std::filesystem::path folder) : folder_(std::move(folder)) {
    std::ifstream program("/proc/self/exe", std::ios::binary);
    program_.assign(std::istreambuf_iterator<char>(program), {});
    std::filesystem::create_directories(folder_);
  }
  Row row(const Case& c, const std::function<Row()>& play) const {
    const std::filesystem::path path = folder_ / fmt::format("{:016x}{:016x}", std::hash<std::string>()(program_), std::hash<std::string>()(fmt::format("{} {}", c.experiment, c.slots)));
    Row row;
    if (std::ifstream in(path); in >> row.ours_s >> row.best_s >> row.half_width >> row.gap >> row.oracle_s >> row.oracle_gap >> row.each_s >> row.each_gap >> row.best) {
      std::getline(in, row.left_out);
      row.left_out.erase(0, row.left_out.find_first_not_of(' '));
      std::string name;
      for (double seconds = 0; in >> name >> seconds;) row.others_s[name] = seconds;
      return row;
    }
    row = play();
    const std::filesystem::path unfinished = path.string() + ".new";
    std::ofstream(unfinished) << fmt::format("{} {} {} {} {} {} {} {} {} {}\n", row.ours_s, row.best_s, row.half_width, row.gap, row.oracle_s, row.oracle_gap, row.each_s, row.each_gap, row.best, row.left_out);
    std::ofstream others(unfinished, std::ios::app);
    for (const auto& [name, seconds] : row.others_s) others << fmt::format("{} {}\n", name, seconds);
    others.close();
    std::filesystem::rename(unfinished, path);
    return row;
  }

 private:
  std::filesystem::path folder_;
  std::string program_;
};

void print_totals(const std::vector<Row>& rows) {
  std::ptrdiff_t lowest = 0;
  double log_ratio = 0, oracle_gap = 0, each_gap = 0;
  const Row* furthest = &rows.front();
  int beyond = 0;  // by more than 1 % outside the interval
  for (const Row& row : rows) {
    lowest += row.lowest(), log_ratio += std::log(row.ours_s / row.best_s) / static_cast<double>(rows.size());
    oracle_gap += row.oracle_gap / static_cast<double>(rows.size()), each_gap += row.each_gap / static_cast<double>(rows.size());
    beyond += row.behind() - row.half_width > 0.01;
    if (row.behind() > furthest->behind()) furthest = &row;
  }
  fmt::print("\n{} is the lowest, or as low, in {} of {} cases ({:.0f} %); {:+.1f} % against the best other in the geometric mean; behind it by {:.2f} % ±{:.2f} at most, and in {} cases by more than 1 % beyond the 95 % interval.\n",
             kUs, lowest, rows.size(), 100.0 * static_cast<double>(lowest) / static_cast<double>(rows.size()), 100 * std::expm1(log_ratio), 100 * std::max(0.0, furthest->behind()), 100 * furthest->half_width, beyond);
  fmt::print("In sample, the mean gap to the bound is {:.1f} % where each batch has its own placement, {:.1f} % where one serves all batches.\n", 100 * each_gap, 100 * oracle_gap);
  fmt::print("Left out of a case are those with more experts on a rank than an even share of the slots.\n");

  std::map<std::string, std::vector<double>> ratios;  // of our time to that of each
  for (const Row& row : rows)
    for (const auto& [name, seconds] : row.others_s) ratios[name].push_back(row.ours_s / seconds);
  std::vector<std::tuple<double, std::string, std::ptrdiff_t, std::size_t>> duels;
  for (const auto& [name, r] : ratios) {
    double log_ratio = 0;
    for (const double x : r) log_ratio += std::log(x) / static_cast<double>(r.size());
    duels.emplace_back(-log_ratio, name, std::ranges::count_if(r, [](double x) { return x <= 1 + 1e-9; }), r.size());
  }
  std::ranges::sort(duels);
  fmt::print("\n| against | cases | as low or lower in | difference in the geometric mean, % |\n| --- | --- | --- | --- |\n");
  for (const auto& [log_ratio, name, lower, of] : duels) fmt::print("| {} | {} | {} ({:.0f} %) | {:+.2f} |\n", name, of, lower, 100.0 * static_cast<double>(lower) / static_cast<double>(of), 100 * std::expm1(-log_ratio));
}

int table(bool quick, const std::string& exchange, const std::vector<std::string>& parts) {
  std::vector<Case> chosen = cases(exchange);
  std::erase_if(chosen, [&](const Case& c) { return !parts.empty() && std::ranges::none_of(parts, [&](const std::string& part) { return c.name.find(part) != std::string::npos; }); });
  if (quick) {
    std::size_t n = 0;
    std::erase_if(chosen, [&](const Case&) { return n++ % 6 != 0; });
  }
  if (chosen.empty()) return fmt::print(stderr, "placement_table: no case has such a name\n"), 2;
  const Kept kept(std::filesystem::read_symlink("/proc/self/exe").parent_path() / "placement-rows");
  const Catalogs catalogs = builtin_catalogs();
  fmt::print("| case | slots | {}, us | best other | its time, us | difference, % | lowest | gap, % | planned on the judged, us | its gap, % | planned on each batch, us | its gap, % | left out |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n", kUs);
  std::vector<Row> rows;
  for (const Case& c : chosen) {
    fmt::print(stderr, "placement_table: case {} of {}: {}, {} slots\n", rows.size() + 1, chosen.size(), c.name, c.slots);
    const Row& row = rows.emplace_back(kept.row(c, [&] { return play(c, catalogs); }));
    fmt::print("| {} | {} | {:.1f} | {} | {:.1f} | {:+.2f} ±{:.2f} | {} | {:.1f} | {:.1f} | {:.1f} | {:.1f} | {:.1f} | {} |\n", c.name, c.slots, 1e6 * row.ours_s, row.best, 1e6 * row.best_s, 100 * row.behind(), 100 * row.half_width,
               row.lowest() ? "yes" : "no", 100 * row.gap, 1e6 * row.oracle_s, 100 * row.oracle_gap, 1e6 * row.each_s, 100 * row.each_gap, row.left_out);
    std::fflush(stdout);
  }
  print_totals(rows);
  return 0;
}

}  // namespace
}  // namespace epsim::bench

int main(int count, char** arguments) try {
  bool quick = false;
  std::string exchange = "direct";
  std::vector<std::string> parts;
  for (int i = 1; i < count; ++i) {
    const std::string word = arguments[i];
    if (word == "--quick") {
      quick = true;
    } else if (word == "--exchange" && i + 1 < count) {
      exchange = arguments[++i];
    } else if (word == "--lines" && i + 1 < count) {
      parts.emplace_back(arguments[++i]);
    } else {
      fmt::print(stderr, "usage: placement_table [--quick] [--exchange YAML] [--lines PART]...\n");
      return 2;
    }
  }
  return epsim::bench::table(quick, exchange, parts);
} catch (const std::exception& error) {
  fmt::print(stderr, "placement_table: {}\n", error.what());
  return 1;
}
