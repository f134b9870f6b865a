#include <algorithm>
#include <iostream>
#include <numeric>
#include <tuple>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/npz.h"
#include "cli/cli.h"
#include "cli/matrix_csv.h"
#include "cli/spec.h"
#include "policies/bound.h"
#include "sim/engine.h"

namespace epsim::verb {
namespace {

struct Options {
  std::string cluster, matrix, exchange = "direct", network = "fair", format = "text";
};

Matrix<Bytes> read_matrix_npz(const std::shared_ptr<const SourceText>& file) {
  const std::map<std::string, NpyArray> arrays = read_npz(file);
  const auto found = arrays.find("bytes");
  if (found == arrays.end()) throw InputError({file}, "expected an array `bytes` [R][R]");
  const NpyArray& a = found->second;
  if (a.shape.size() != 2 || a.shape[0] != a.shape[1] || a.shape[0] == 0) throw InputError({file}, fmt::format("`bytes` must be a square matrix, its shape is [{}]", fmt::join(a.shape, ", ")));
  Matrix<Bytes> matrix(a.shape[0], a.shape[1]);
  for (std::size_t i = 0; i < matrix.cells.size(); ++i) {
    matrix.cells[i] = whole_bytes(a.is_float ? a.floats[i] : static_cast<double>(a.integers[i]));
    if (matrix.cells[i] < 0)
      throw InputError({file}, fmt::format("`bytes[{}][{}]` must be a whole number from 0 to 1e15", i / static_cast<std::size_t>(a.shape[0]), i % static_cast<std::size_t>(a.shape[0])));
  }
  return matrix;
}

/// The journeys of the catalog's exchanges that have one.
std::string names_of_byte_exchanges(const Catalogs& catalogs) {
  std::string names;
  for (const auto& entry : catalogs.exchange.entries()) {
    Params listing;
    if (entry.make(listing, nullptr).journey) names += (names.empty() ? "`" : ", `") + entry.name + "`";
  }
  return names;
}

/// How the exchange that the command line names carries bytes.
Journey read_journey(const std::string& text, const Topology& topology, const Catalogs& catalogs, Diagnostics& problems) {
  const Setting setting = setting_of(text, "--exchange");
  Shape shape;
  shape.ranks = topology.ranks(), shape.nodes = topology.nodes();
  const std::size_t before = problems.size();
  const Exchange exchange = catalogs.exchange.make(setting, problems, topology.ranks() > 0 ? &shape : nullptr);
  if (problems.size() > before || topology.ranks() == 0) return {};
  if (exchange.journey) return exchange.journey(topology);
  problems.add(setting.at, "the exchange `" + part_choice(setting, problems).name + "` needs tokens and cannot carry a matrix of bytes; these can: " + names_of_byte_exchanges(catalogs));
  return {};
}

struct Outcome {
  double time_s = 0, lower_bound_s = 0;
  std::vector<double> rank_finish_s;                // [R]
  std::vector<std::vector<double>> flow_finish_s;   // [R][R], 0 where no bytes cross a link
  std::vector<double> link_bytes;                   // [links]
};

Outcome play(const Topology& topology, const Matrix<Bytes>& bytes, const Journey& journey, const NetworkModel& network) {
  const Schedule schedule = carry(journey, bytes);
  ComputeModel none;
  none.kernel_seconds = [](const Device&, const KernelCall&, Precision) { return 0.0; };
  none.reduce_seconds = [](const Device&, double) { return 0.0; };
  const Timeline timeline = simulate(schedule, topology, network, none, Precision::bf16, Timeline::Detail::flow);

  Outcome out;
  out.lower_bound_s = lower_bound(schedule, topology, [](const KernelCall&) { return 0.0; });
  const auto n = static_cast<std::size_t>(topology.ranks());
  // Times are those of the network's own clock: picoseconds would be coarse for the smallest messages.
  out.rank_finish_s.assign(n, 0);
  out.link_bytes.assign(topology.links().size(), 0);
  for (const Timeline::FlowRecord& f : timeline.flows) {
    out.rank_finish_s[f.destination] = std::max(out.rank_finish_s[f.destination], f.end_s);
    out.time_s = std::max(out.time_s, f.end_s);
    topology.for_each_share(f.source, f.destination, [&](std::int32_t l, double share) { out.link_bytes[l] += static_cast<double>(f.bytes) * share; });
  }
  out.flow_finish_s.assign(n, std::vector<double>(n, 0));
  const auto key = [](std::int32_t phase, Rank source, Rank destination) { return std::tuple(phase, source.value, destination.value); };
  for (const Rank s : ids<Rank>(topology.ranks()))
    for (const Rank d : ids<Rank>(topology.ranks())) {
      if (s == d || bytes(s, d) == 0) continue;
      const Journey::LastHop hop = journey.last(s, d);
      const auto last = key(hop.round, hop.from, d);
      const auto flow = std::lower_bound(timeline.flows.begin(), timeline.flows.end(), last, [&](const Timeline::FlowRecord& f, const auto& k) { return key(f.phase, f.source, f.destination) < k; });
      out.flow_finish_s[s][d] = flow->end_s;
    }
  return out;
}

double utilisation(const Outcome& out, const Topology& topology, std::size_t link) {
  return out.time_s > 0 ? out.link_bytes[link] / topology.links()[link].bandwidth / out.time_s : 0;
}

void print_json(const Outcome& out, const Topology& topology) {
  nlohmann::ordered_json json{{"time_s", out.time_s}, {"lower_bound_s", out.lower_bound_s}, {"rank_finish_s", out.rank_finish_s}, {"flow_finish_s", out.flow_finish_s}};
  json["links"] = nlohmann::ordered_json::array();
  for (std::size_t l = 0; l < out.link_bytes.size(); ++l)
    json["links"].push_back({{"name", topology.links()[l].name}, {"bytes", out.link_bytes[l]}, {"utilisation", utilisation(out, topology, l)}});
  std::cout << json.dump() << "\n";
}

void print_text(const Outcome& out, const Topology& topology, const Matrix<Bytes>& bytes, const Options& options) {
  const auto slowest = std::max_element(out.rank_finish_s.begin(), out.rank_finish_s.end()) - out.rank_finish_s.begin();
  double total = 0;
  for (const Rank s : ids<Rank>(bytes.rows))
    for (const Rank d : ids<Rank>(bytes.rows)) total += s == d ? 0.0 : static_cast<double>(bytes(s, d));
  std::cout << fmt::format("{} between {} ranks, exchange {}, network {}\n", format_bytes(total), bytes.rows, options.exchange, options.network)
            << fmt::format("time         {}\nlower bound  {}\nlast rank    {}\n", format_seconds(out.time_s), format_seconds(out.lower_bound_s), slowest) << "busiest links:\n";
  std::vector<std::size_t> order(out.link_bytes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return utilisation(out, topology, a) > utilisation(out, topology, b); });
  for (std::size_t i = 0; i < std::min<std::size_t>(5, order.size()); ++i)
    std::cout << fmt::format("  {:5.1f} %  {:>9}  {}\n", 100 * utilisation(out, topology, order[i]), format_bytes(out.link_bytes[order[i]]), topology.links()[order[i]].name);
}

void run_alltoall(const Options& options, const Catalogs& catalogs) {
  Diagnostics problems;
  const auto attempt = [&](auto&& read) {
    try {
      read();
    } catch (const InputError& e) {
      problems.add(e);
    }
  };
  Topology topology;
  NetworkModel network;
  Matrix<Bytes> bytes;
  // Makers keep no settings, but locations in their problems do.
  attempt([&] { topology = catalogs.cluster.make(setting_of(options.cluster, "--cluster"), problems); });
  Journey journey;
  attempt([&] { journey = read_journey(options.exchange, topology, catalogs, problems); });
  attempt([&] { network = catalogs.network.make(setting_of(options.network, "--network"), problems); });
  attempt([&] {
    const std::shared_ptr<const SourceText> file = read_text(options.matrix);
    bytes = options.matrix.ends_with(".npz") ? read_matrix_npz(file) : read_matrix_csv(file);
    if (topology.ranks() > 0 && bytes.rows != topology.ranks()) problems.add({file}, fmt::format("the matrix has {} rows, but the cluster has {} ranks", bytes.rows, topology.ranks()));
  });
  if (options.format != "text" && options.format != "json")
    problems.add({std::make_shared<const SourceText>(SourceText{"--format", options.format}), 1, 1}, "there is no format `" + options.format + "`" + suggest(options.format, {"text", "json"}));
  problems.check();

  const Outcome out = play(topology, bytes, journey, network);
  if (options.format == "json")
    print_json(out, topology);
  else
    print_text(out, topology, bytes, options);
}

}  // namespace

/// `epsim alltoall`: times the exchange of a matrix of bytes on a cluster.
/// json: `time_s`; `lower_bound_s`; `rank_finish_s` [R], when a rank has received all; `flow_finish_s` [source][destination], when the last byte of the pair has arrived, 0 where no bytes cross a link;
/// `links` [{`name`, `bytes`, `utilisation` (bytes / bandwidth / time_s)}] in the cluster's order, idle ones too.
void alltoall(CLI::App& app, const Catalogs& catalogs, int& result) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("alltoall", "Times the exchange of a matrix of bytes on a cluster");
  verb->add_option("--cluster", options->cluster, "the cluster, as in an experiment file: YAML such as '{single_switch: {ranks: 8}}', or a file that holds it")->required();
  verb->add_option("--matrix", options->matrix, "CSV (a row of byte counts for each source rank, no header) or .npz with `bytes` [R][R]")->required();
  verb->add_option("--exchange", options->exchange, "an exchange that can carry bytes, as in an experiment file: " + names_of_byte_exchanges(catalogs))->capture_default_str();
  verb->add_option("--network", options->network, "a network model")->capture_default_str();
  verb->add_option("--format", options->format, "text or json")->capture_default_str();
  verb->callback([options, &catalogs, &result] {
    run_alltoall(*options, catalogs);
    result = kOk;
  });
}

}  // namespace epsim::verb
