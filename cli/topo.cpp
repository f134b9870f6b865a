#include <algorithm>
#include <iostream>
#include <map>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/cli.h"
#include "cli/output_file.h"
#include "cli/spec.h"
#include "topology/bisection.h"
#include "topology/writers.h"

namespace epsim::verb {
namespace {

struct Options {
  std::string cluster, format = "text", as, out;
  std::vector<std::string> paths;
};

Location on_command_line(const std::string& option, const std::string& text) { return {std::make_shared<const SourceText>(SourceText{option, text}), 1, 1}; }

Topology read_cluster(const Options& o, const Catalogs& catalogs, Diagnostics& problems) {
  try {
    return catalogs.cluster.make(setting_of(o.cluster, "cluster"), problems);
  } catch (const InputError& e) {
    problems.add(e);
    return {};
  }
}

/// The links of a tier, taken together.
struct Tier {
  std::string name;
  std::int64_t links = 0;
  double least_rate = 0, most_rate = 0, total_rate = 0;
  Time least_latency, most_latency;
};

/// In the order in which they first occur.
std::vector<Tier> tiers(const Topology& t) {
  std::vector<Tier> out;
  for (const Link& link : t.links()) {
    auto tier = std::find_if(out.begin(), out.end(), [&](const Tier& x) { return x.name == link.tier; });
    if (tier == out.end()) tier = out.insert(out.end(), {link.tier, 0, link.bandwidth, link.bandwidth, 0, link.latency, link.latency});
    ++tier->links;
    tier->total_rate += link.bandwidth;
    tier->least_rate = std::min(tier->least_rate, link.bandwidth), tier->most_rate = std::max(tier->most_rate, link.bandwidth);
    tier->least_latency = std::min(tier->least_latency, link.latency), tier->most_latency = std::max(tier->most_latency, link.latency);
  }
  return out;
}

using Pair = std::pair<Rank, Rank>;

std::vector<Pair> read_pairs(const Options& o, const Topology& t, Diagnostics& problems) {
  std::vector<Pair> pairs;
  for (const std::string& text : o.paths) {
    const std::size_t colon = text.find(':');
    const auto s = parse_integer(text.substr(0, colon)), d = colon == std::string::npos ? std::nullopt : parse_integer(text.substr(colon + 1));
    const auto is_rank = [&](const std::optional<std::int64_t>& r) { return r && *r >= 0 && *r < std::max(1, t.ranks()); };
    if (is_rank(s) && is_rank(d))
      pairs.emplace_back(Rank(*s), Rank(*d));
    else
      problems.add(on_command_line("--path", text), fmt::format("expected two ranks SOURCE:DESTINATION from 0 to {}, got `{}`", t.ranks() - 1, text));
  }
  return pairs;
}

std::string_view rule_name(const Topology& t) {
  constexpr std::string_view kNames[] = {"dmodk", "first", "ecmp", "spread"};
  return kNames[static_cast<std::size_t>(t.path_rule().kind)];
}

void print_json(const Topology& t, const std::vector<Pair>& pairs) {
  nlohmann::ordered_json json{{"ranks", t.ranks()}, {"nodes", t.nodes()}, {"switches", static_cast<std::int64_t>(t.vertices().size()) - t.ranks()}, {"links", t.links().size()},
                              {"device", t.device().name}, {"routing", rule_name(t)}, {"bisection_bandwidth", bisection_bandwidth(t)}};
  json["tiers"] = nlohmann::ordered_json::array();
  for (const Tier& x : tiers(t))
    json["tiers"].push_back({{"tier", x.name}, {"links", x.links}, {"bandwidth_min", x.least_rate}, {"bandwidth_max", x.most_rate}, {"bandwidth_sum", x.total_rate},
                             {"latency_min_s", x.least_latency.seconds()}, {"latency_max_s", x.most_latency.seconds()}});
  json["paths"] = nlohmann::ordered_json::array();
  for (const auto& [s, d] : pairs) {
    nlohmann::ordered_json path{{"source", s.value}, {"destination", d.value}, {"latency_s", t.latency(s, d).seconds()}};
    path["bandwidth"] = s == d ? nlohmann::ordered_json() : nlohmann::ordered_json(t.bandwidth(s, d));
    path["links"] = nlohmann::ordered_json::array();
    t.for_each_share(s, d, [&](std::int32_t l, double share) {
      const Link& link = t.links()[static_cast<std::size_t>(l)];
      path["links"].push_back({{"name", link.name}, {"tier", link.tier}, {"share", share}, {"bandwidth", link.bandwidth}, {"latency_s", link.latency.seconds()}});
    });
    json["paths"].push_back(std::move(path));
  }
  std::cout << json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
}

template <class T, class Format>
std::string range(T least, T most, Format&& format) {
  return least == most ? format(least) : format(least) + " to " + format(most);
}

void print_text(const Topology& t, const std::vector<Pair>& pairs) {
  const auto seconds = [](Time x) { return format_seconds(x.seconds()); };
  std::cout << fmt::format("{}\n{} ranks in {} nodes, {} switches, {} directed links; device {}, routing {}\n", t.summary, t.ranks(), t.nodes(),
                           static_cast<std::int64_t>(t.vertices().size()) - t.ranks(), t.links().size(), t.device().name, rule_name(t));
  std::cout << fmt::format("bisection (first half of the ranks to the rest): {}\n\n", format_bandwidth(bisection_bandwidth(t)));
  std::cout << fmt::format("{:<12} {:>8}  {:<26} {:<24} {}\n", "tier", "links", "bandwidth of a link", "latency of a hop", "all together");
  for (const Tier& x : tiers(t))
    std::cout << fmt::format("{:<12} {:>8}  {:<26} {:<24} {}\n", x.name, x.links, range(x.least_rate, x.most_rate, format_bandwidth), range(x.least_latency, x.most_latency, seconds),
                             format_bandwidth(x.total_rate));
  for (const auto& [s, d] : pairs) {
    std::cout << fmt::format("\nrank {} to rank {}: ", s.value, d.value);
    if (s == d) {
      std::cout << "stays where it is\n";
      continue;
    }
    std::cout << fmt::format("{} alone, latency {}\n", format_bandwidth(t.bandwidth(s, d)), seconds(t.latency(s, d)));
    t.for_each_share(s, d, [&](std::int32_t l, double share) {
      const Link& link = t.links()[static_cast<std::size_t>(l)];
      std::cout << fmt::format("  {:>6.2f} %  {:<12} {:<12} {}\n", 100 * share, format_bandwidth(link.bandwidth), seconds(link.latency), link.name);
    });
  }
}

void show(const Options& o, const Catalogs& catalogs) {
  Diagnostics problems;
  const Topology t = read_cluster(o, catalogs, problems);
  const std::vector<Pair> pairs = problems.size() == 0 ? read_pairs(o, t, problems) : std::vector<Pair>{};
  problems.check();
  if (o.format == "json")
    print_json(t, pairs);
  else
    print_text(t, pairs);
}

void write(const Options& o, const Catalogs& catalogs) {
  Diagnostics problems;
  const Topology t = read_cluster(o, catalogs, problems);
  problems.check();
  const std::string text = o.as == "graphml" ? to_graphml(t) : o.as == "simgrid" ? to_simgrid(t, t.device().flops_bf16.value > 0 ? t.device().flops_bf16.value : t.device().flops_fp32.value) : to_astra_sim(t);
  write_file(o.out, "--out", text);
  std::cout << "wrote " << o.out << "\n";
}

}  // namespace

/// `epsim topo show` and `epsim topo export`: what a cluster is, and the same for other programs.
/// json of show: `ranks`, `nodes`, `switches`, `links` (counts), `device`, `routing`, `bisection_bandwidth` (bytes/s), `tiers` [{`tier`, `links`, `bandwidth_min`, `bandwidth_max`, `bandwidth_sum`,
/// `latency_min_s`, `latency_max_s`}], `paths` [{`source`, `destination`, `latency_s`, `bandwidth` (null from a rank to itself), `links` [{`name`, `tier`, `share`, `bandwidth`, `latency_s`}]}].
void topo(CLI::App& app, const Catalogs& catalogs, int& result) {
  CLI::App* verb = app.add_subcommand("topo", "Shows a cluster, or writes it for other programs");
  verb->require_subcommand(1);
  const auto o = std::make_shared<Options>();
  const char* const help = "the cluster, as in an experiment file: YAML such as '{single_switch: {ranks: 8, device: h100}}', or a file that holds it";
  CLI::App* shower = verb->add_subcommand("show", "Prints ranks, tiers, bisection bandwidth and paths");
  shower->add_option("cluster", o->cluster, help)->required();
  shower->add_option("--path", o->paths, "SOURCE:DESTINATION, two ranks whose path is printed; may be given several times");
  shower->add_option("--format", o->format, "text or json")->check(CLI::IsMember({"text", "json"}))->capture_default_str();
  shower->footer("Example: epsim topo show '{rail_fat_tree: {nodes: 8, ranks_per_node: 8, device: h800}}' --path 0:9");
  CLI::App* writer = verb->add_subcommand("export", "Writes the cluster for another program");
  writer->add_option("cluster", o->cluster, help)->required();
  writer->add_option("--as", o->as, "graphml, simgrid (a platform of up to 512 ranks) or astra (ASTRA-sim's analytical network, a summary)")->required()->check(CLI::IsMember({"graphml", "simgrid", "astra"}));
  writer->add_option("--out", o->out, "the file to write")->required();
  shower->callback([o, &catalogs, &result] { show(*o, catalogs), result = kOk; });
  writer->callback([o, &catalogs, &result] { write(*o, catalogs), result = kOk; });
}

}  // namespace epsim::verb
