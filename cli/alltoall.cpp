#include <algorithm>
#include <array>
#include <iostream>
#include <numeric>
#include <tuple>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "analysis/export/link_text.h"
#include "analysis/traffic.h"
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
  int bins = 20;
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

/// Settings of exchanges that say which rows there are and when they are ready, and nothing of how bytes travel.
constexpr std::array<std::string_view, 4> kOfTokens = {"dedup", "chunks", "chunk_experts", "reduce_in_node"};

/// How the exchange that the command line names carries bytes.
Journey read_journey(const std::string& text, const Topology& topology, const Catalogs& catalogs, Diagnostics& problems) {
  const Setting setting = setting_of(text, "--exchange");
  Shape shape;
  shape.ranks = topology.ranks(), shape.nodes = topology.nodes();
  const std::size_t before = problems.size();
  const Exchange exchange = catalogs.exchange.make(setting, problems, topology.ranks() > 0 ? &shape : nullptr);
  if (problems.size() > before || topology.ranks() == 0) return {};
  const PartChoice choice = part_choice(setting, problems);
  if (exchange.journey) {
    for (const Setting::Entry& e : choice.settings.entries)
      if (std::ranges::find(kOfTokens, e.key) != kOfTokens.end()) problems.add(e.at, fmt::format("`{}` is about tokens: it has no effect on a matrix of bytes", e.key));
    return exchange.journey(topology);
  }
  problems.add(setting.at, "the exchange `" + choice.name + "` needs tokens and cannot carry a matrix of bytes; these can: " + names_of_byte_exchanges(catalogs));
  return {};
}

struct Outcome {
  double time_s = 0, lower_bound_s = 0, arrival_error = 0;
  std::vector<double> rank_finish_s;                // [R]
  std::vector<std::vector<double>> flow_finish_s;   // [R][R], 0 where no bytes cross a link
  LinkUse links;
  std::vector<std::int32_t> bottleneck;             // links
  BusiestLink busiest;
};

Outcome play(const Topology& topology, const Matrix<Bytes>& bytes, const Journey& journey, const NetworkModel& network, int bins) {
  const Schedule schedule = carry(journey, bytes);
  ComputeModel none;
  none.kernel_seconds = [](const Device&, const KernelCall&, Precision) { return 0.0; };
  none.reduce_seconds = [](const Device&, double) { return 0.0; };
  const Timeline timeline = simulate(schedule, topology, network, none, Precision::bf16, Timeline::Detail::flow);

  Outcome out;
  out.lower_bound_s = lower_bound(schedule, topology, [](const KernelCall&) { return 0.0; });
  out.arrival_error = timeline.arrival_error;
  const auto n = static_cast<std::size_t>(topology.ranks());
  // Times are those of the network's own clock: picoseconds would be coarse for the smallest messages.
  out.rank_finish_s.assign(n, 0);
  for (const Timeline::FlowRecord& f : timeline.flows) {
    out.rank_finish_s[f.destination] = std::max(out.rank_finish_s[f.destination], f.end_s);
    out.time_s = std::max(out.time_s, f.end_s);
  }
  out.links = link_use(timeline, schedule, Stage::dispatch, topology, bins);  // the only stage that carry() has
  out.bottleneck = bottleneck_links(out.links.bytes, topology);
  out.busiest = busiest_link(out.links.bytes, topology);
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

void print_json(const Outcome& out, const Topology& topology) {
  nlohmann::ordered_json json{{"time_s", out.time_s}, {"lower_bound_s", out.lower_bound_s}, {"arrival_error", out.arrival_error}, {"busiest_link_s", out.busiest.busy_s}, {"efficiency", out.busiest.efficiency(out.time_s)}};
  json["bottleneck_links"] = nlohmann::ordered_json::array();
  for (const std::int32_t l : out.bottleneck) json["bottleneck_links"].push_back(topology.links()[static_cast<std::size_t>(l)].name);
  json["rank_finish_s"] = out.rank_finish_s, json["flow_finish_s"] = out.flow_finish_s;
  json["links"] = nlohmann::ordered_json::array();
  for (std::size_t l = 0; l < out.links.bytes.size(); ++l)
    json["links"].push_back({{"name", topology.links()[l].name}, {"bytes", out.links.bytes[l]}, {"utilisation", out.links.utilisation(l)}, {"utilisation_over_time", out.links.utilisation_over_time(l)}});
  std::cout << json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
}

void print_text(const Outcome& out, const Topology& topology, const Matrix<Bytes>& bytes, const Options& options) {
  const auto slowest = std::max_element(out.rank_finish_s.begin(), out.rank_finish_s.end()) - out.rank_finish_s.begin();
  double total = 0;
  for (const Rank s : ids<Rank>(bytes.rows))
    for (const Rank d : ids<Rank>(bytes.rows)) total += s == d ? 0.0 : static_cast<double>(bytes(s, d));
  std::cout << fmt::format("{} between {} ranks, exchange {}, network {}\n", format_bytes(total), bytes.rows, options.exchange, options.network)
            << fmt::format("time         {}\nlower bound  {}\nlast rank    {}\n", format_seconds(out.time_s), format_seconds(out.lower_bound_s), slowest);
  if (out.arrival_error > 0) std::cout << fmt::format("arrivals     99 of 100 within {:.1e} of the exact time (an estimate)\n", out.arrival_error);
  if (out.bottleneck.empty()) {
    std::cout << "no bytes cross a link\n";
    return;
  }
  std::cout << fmt::format("busiest link {}, {:.1f} % of the time\nbottleneck   {}\nbusiest links:\n", format_seconds(out.busiest.busy_s), 100 * out.busiest.efficiency(out.time_s),
                           name_links(out.bottleneck, topology));
  std::vector<std::size_t> order(out.links.bytes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return out.links.utilisation(a) > out.links.utilisation(b); });
  for (std::size_t i = 0; i < std::min<std::size_t>(5, order.size()); ++i)
    std::cout << fmt::format("  {:5.1f} %  {:>9}  {}\n", 100 * out.links.utilisation(order[i]), format_bytes(out.links.bytes[order[i]]), topology.links()[order[i]].name);
  std::cout << fmt::format("utilisation of the tiers' links over time (an estimate; the most is of one link in one of {} parts):\n", options.bins);
  write_tiers(std::cout, out.links, topology);
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

  const Outcome out = play(topology, bytes, journey, network, options.bins);
  if (options.format == "json")
    print_json(out, topology);
  else
    print_text(out, topology, bytes, options);
}

}  // namespace

/// `epsim alltoall`: times the exchange of a matrix of bytes on a cluster.
/// json: `time_s`; `lower_bound_s`; `arrival_error`, how far off 99 of 100 arrivals may be for the network's tolerance, an estimate; `busiest_link_s`, bytes / bandwidth of the busiest link; `efficiency`, that over `time_s`; `bottleneck_links`, names of those within 1 % of it; `rank_finish_s` [R], when a rank has received all; `flow_finish_s` [source][destination], when the last byte of the pair has arrived, 0 where no bytes cross a link;
/// `links` [{`name`, `bytes`, `utilisation` (bytes / bandwidth / time_s), `utilisation_over_time` [bins]}] in the cluster's order, idle ones too.
void alltoall(CLI::App& app, const Catalogs& catalogs, int& result) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("alltoall", "Times the exchange of a matrix of bytes on a cluster");
  verb->add_option("--cluster", options->cluster, "the cluster, as in an experiment file: YAML such as '{single_switch: {ranks: 8}}', or a file that holds it")->required();
  verb->add_option("--matrix", options->matrix, "CSV (a row of byte counts for each source rank, no header) or .npz with `bytes` [R][R]")->required();
  verb->add_option("--exchange", options->exchange, "an exchange that can carry bytes, as in an experiment file: " + names_of_byte_exchanges(catalogs))->capture_default_str();
  verb->add_option("--network", options->network, "a network model")->capture_default_str();
  verb->add_option("--bins", options->bins, "equal parts of the time for which the use of links is told")->check(CLI::Range(1, 10'000))->capture_default_str();
  verb->add_option("--format", options->format, "text or json")->capture_default_str();
  verb->callback([options, &catalogs, &result] {
    run_alltoall(*options, catalogs);
    result = kOk;
  });
}

}  // namespace epsim::verb
