#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "analysis/export/deployment.h"
#include "analysis/measure.h"
#include "cli/cli.h"
#include "cli/output_file.h"
#include "cli/spec.h"
#include "workloads/import/load_dump.h"

namespace epsim::verb {
namespace {

/// What was typed, as text: the policy's own settings are read and judged by the policy.
struct PlaceOptions {
  std::string loads, policy, format = "text", as, out;
  std::optional<std::string> slots, groups;
  std::int64_t ranks = 0, nodes = 0;
  std::uint64_t seed = 0;
};

/// A value of the command line as a setting whose problems point at its option.
Setting typed(const std::string& option, const std::string& text) {
  Setting s;
  s.kind = Setting::Kind::scalar;
  s.text = text;
  s.at = {std::make_shared<SourceText>(SourceText{option, text}), 1, 1};
  return s;
}

/// {policy: {slots: P, groups: G}}, with what the policy was given as YAML.
Setting policy_setting(const PlaceOptions& o, Diagnostics& problems) {
  const PartChoice choice = part_choice(setting_of(o.policy, "--policy"), problems);
  Setting settings = choice.settings;
  const auto set = [&](const std::string& key, const std::optional<std::string>& text) {
    if (!text) return;
    const Setting value = typed("--" + key, *text);
    if (const Setting* given = settings.find(key))
      problems.add(given->at, fmt::format("`{}` is given as --{} as well: leave out one", key, key));
    else
      settings.entries.push_back({key, value.at, value});
  };
  set("slots", o.slots), set("groups", o.groups);
  Setting part;
  part.kind = Setting::Kind::map;
  part.at = choice.at;
  part.entries.push_back({choice.name, choice.at, settings});
  return part;
}

/// Says which layers have no counts: any placement of them is as good. Refuses a dump without any.
void check_counts(const LoadDump& loads, const std::string& file, Diagnostics& problems) {
  std::vector<int> empty;
  for (std::size_t l = 0; l < loads.logical_count.size(); ++l)
    if (std::ranges::all_of(loads.logical_count[l], [](std::int64_t n) { return n == 0; })) empty.push_back(loads.layers.empty() ? static_cast<int>(l) : loads.layers[l]);
  if (!empty.empty() && empty.size() == loads.logical_count.size())
    problems.add({std::make_shared<SourceText>(SourceText{file, {}}), 0, 0}, "all counts are 0: there is nothing to place experts by");
  else if (!empty.empty())
    fmt::print(stderr, "warning: {}: layers {} have no counts\n", file, fmt::join(empty, ", "));
}

/// Load of each rank where every expert's load splits evenly over its replicas.
std::vector<double> rank_loads(const Placement& placement, std::span<const std::int64_t> loads) {
  std::vector<double> out(static_cast<std::size_t>(placement.ranks()));
  for (std::size_t r = 0; r < out.size(); ++r)
    for (std::int32_t s = placement.first_slot[r]; s < placement.first_slot[r + 1]; ++s) {
      const std::size_t e = placement.expert_of_slot[static_cast<std::size_t>(s)];
      out[r] += static_cast<double>(loads[e]) / static_cast<double>(placement.slots_of_expert[e].size());
    }
  return out;
}

/// The load metrics for loads that need not be whole, because an expert's load is shared by its replicas.
LoadMetrics shared_load_metrics(std::span<const double> loads, double choices) {
  LoadMetrics m;
  if (choices <= 0) return m;
  const auto [least, most] = std::ranges::minmax(loads);
  const double mean = choices / static_cast<double>(loads.size());
  double squares = 0;
  for (const double l : loads) squares += (l - mean) * (l - mean);
  m.max_over_mean = most / mean;
  m.max_minus_mean_over_mean = (most - mean) / mean;
  m.mean_over_max = mean / most;
  m.max_plus_1_over_min_plus_1 = (most + 1) / (least + 1);
  m.std_over_mean = std::sqrt(squares / static_cast<double>(loads.size())) / mean;
  m.max_minus_min_over_tokens = (most - least) / choices;
  return m;
}

struct LayerResult {
  int layer = 0;
  Placement placement;
  std::vector<double> rank_load;
  LoadMetrics metrics;
};

std::vector<LayerResult> place_all(const PlaceOptions& o, const PlacementCatalog& catalog) {
  Diagnostics problems;
  constexpr std::int64_t kMaxRanks = 65'536;
  if (o.ranks < 1 || o.ranks > kMaxRanks)
    problems.add(typed("--ranks", std::to_string(o.ranks)).at, fmt::format("there must be from 1 to {} ranks, got {}", kMaxRanks, o.ranks));
  else if (o.nodes < 1 || o.nodes > o.ranks)
    problems.add(typed("--nodes", std::to_string(o.nodes)).at, o.ranks == 1 ? fmt::format("1 rank is on 1 node, got {}", o.nodes) : fmt::format("{} ranks are on 1 to {} nodes, got {}", o.ranks, o.ranks, o.nodes));
  else if (o.ranks % o.nodes != 0)
    problems.add(typed("--nodes", std::to_string(o.nodes)).at, fmt::format("{} ranks do not divide into {} nodes of equal size", o.ranks, o.nodes));
  LoadDump loads;
  try {
    loads = read_load_dump(read_text(o.loads));
    check_counts(loads, o.loads, problems);
  } catch (const InputError& e) {
    problems.add(e);
  }
  // Settings are checked against what is known; a broken size must not hide a misspelt policy.
  Shape shape;
  shape.experts = loads.experts();
  shape.top_k = 1;
  shape.ranks = static_cast<int>(std::clamp<std::int64_t>(o.ranks, 0, kMaxRanks));
  shape.nodes = static_cast<int>(std::clamp<std::int64_t>(o.nodes, 0, kMaxRanks));
  const bool sizes_known = problems.size() == 0;
  PlacementPolicy policy;
  try {
    const Setting setting = policy_setting(o, problems);
    policy = catalog.make(setting, problems, sizes_known ? &shape : nullptr);
  } catch (const InputError& e) {
    problems.add(e);
  }
  if (policy.sees == PlacementPolicy::Sees::tokens && !policy.or_less)
    problems.add(typed("--policy", o.policy).at,
                 fmt::format("`{}` places by the choices of single tokens; a load dump has only sums (use `epsim run`)", o.policy));
  if (policy.sees == PlacementPolicy::Sees::machine && !policy.or_less)
    problems.add(typed("--policy", o.policy).at, fmt::format("`{}` places by the links of the machine; here only sizes are known (use `epsim run`)", o.policy));
  problems.check();

  Problem problem;
  problem.experts = shape.experts;
  problem.ranks = shape.ranks;
  problem.nodes = shape.nodes;
  problem.seed = o.seed;
  if (loads.layers.empty())
    for (std::size_t l = 0; l < loads.logical_count.size(); ++l) loads.layers.push_back(static_cast<int>(l));
  problem.layers = loads.layers;
  for (const std::vector<std::int64_t>& row : loads.logical_count) {
    Matrix<std::int64_t>& m = problem.counts.emplace_back(1, problem.experts);
    std::ranges::copy(row, m.cells.begin());
  }
  std::vector<Placement> placements = policy.place(problem);
  ensure(placements.size() == loads.logical_count.size(), "a placement policy answers for all layers");
  std::vector<LayerResult> results;
  for (std::size_t l = 0; l < placements.size(); ++l) {
    placements[l].check(problem.experts);
    LayerResult& r = results.emplace_back(LayerResult{loads.layers[l], std::move(placements[l]), {}, {}});
    double choices = 0;
    for (const std::int64_t n : loads.logical_count[l]) choices += static_cast<double>(n);
    r.rank_load = rank_loads(r.placement, loads.logical_count[l]);
    r.metrics = shared_load_metrics(r.rank_load, choices);
  }
  return results;
}

/// The layout of EPLB's own results: replicas of an expert are padded with -1 to the largest number of replicas over all layers.
nlohmann::ordered_json to_json(const std::vector<LayerResult>& results) {
  std::vector<int> layers;
  std::size_t width = 0;
  for (const LayerResult& r : results)
    for (const std::vector<Slot>& replicas : r.placement.slots_of_expert) width = std::max(width, replicas.size());
  nlohmann::ordered_json physical = nlohmann::ordered_json::array(), logical = physical, count = physical, first = physical, metrics = physical;
  for (const LayerResult& r : results) {
    layers.push_back(r.layer);
    physical.push_back(r.placement.expert_of_slot);
    first.push_back(r.placement.first_slot);
    nlohmann::ordered_json slots = nlohmann::ordered_json::array(), replicas = slots;
    for (const std::vector<Slot>& of_expert : r.placement.slots_of_expert) {
      std::vector<std::int32_t> row(of_expert.begin(), of_expert.end());
      row.resize(width, -1);
      slots.push_back(std::move(row));
      replicas.push_back(of_expert.size());
    }
    logical.push_back(std::move(slots));
    count.push_back(std::move(replicas));
    metrics.push_back({{"layer", r.layer},
                       {"max_over_mean", r.metrics.max_over_mean},
                       {"max_minus_mean_over_mean", r.metrics.max_minus_mean_over_mean},
                       {"mean_over_max", r.metrics.mean_over_max},
                       {"max_plus_1_over_min_plus_1", r.metrics.max_plus_1_over_min_plus_1},
                       {"std_over_mean", r.metrics.std_over_mean},
                       {"max_minus_min_over_tokens", r.metrics.max_minus_min_over_tokens}});
  }
  return {{"layers", layers}, {"physical_to_logical", physical}, {"logical_to_physical", logical}, {"logical_count", count}, {"first_slot", first}, {"metrics", metrics}};
}

/// The form that --export names; nothing is computed for a name that is not known or without a file.
const DeploymentFormat& read_export(const PlaceOptions& o) {
  std::vector<std::string> names;
  for (const DeploymentFormat& f : deployment_formats()) {
    if (f.name == o.as && !o.out.empty()) return f;
    names.emplace_back(f.name);
  }
  const bool known = std::ranges::find(names, o.as) != names.end();
  if (known) throw InputError(typed("--export", o.as).at, "give the name of the file as --out");
  throw InputError(typed("--export", o.as).at, fmt::format("there is no form `{}`{}", o.as, suggest(o.as, names)));
}

Deployment deployment(const std::vector<LayerResult>& results) {
  Deployment out;
  out.experts = static_cast<int>(results.front().placement.slots_of_expert.size());
  std::vector<const LayerResult*> order;
  for (const LayerResult& r : results) order.push_back(&r);
  std::ranges::sort(order, {}, &LayerResult::layer);
  for (const LayerResult* r : order) out.layers.push_back(r->layer), out.placements.push_back(r->placement);
  return out;
}

/// "0 to 2, 4" for ascending numbers.
std::string ranges(const std::vector<int>& numbers) {
  std::string out;
  for (std::size_t i = 0, next = 0; i < numbers.size(); i = next) {
    for (next = i + 1; next < numbers.size() && numbers[next] == numbers[next - 1] + 1;) ++next;
    out += fmt::format("{}{}{}", out.empty() ? "" : ", ", numbers[i], next - i > 1 ? fmt::format(" to {}", numbers[next - 1]) : "");
  }
  return out;
}

/// Says what was written, which layer is which where the form has numbers of its own, and which layers it holds that were not placed.
void say_export(const DeploymentFormat& form, const Deployment& written, const std::string& file) {
  fmt::print(stderr, "wrote {}\n", file);
  const int layers = static_cast<int>(written.layers.size());
  if (written.layers.back() == layers - 1) return;
  if (form.name == "vllm-ascend")
    fmt::print(stderr, "note: {} numbers layers among those placed: {} there {} {} here, which the file cannot say; `epsim import --model` gives them back only where they are all MoE layers of the model\n", form.name,
               layers == 1 ? "0" : fmt::format("0 to {}", layers - 1), layers == 1 ? "is" : "are", fmt::join(written.layers, ", "));
  if (form.name != "sglang") return;
  std::vector<int> others;
  for (int l = 0; l < written.layers.back(); ++l)
    if (!std::ranges::binary_search(written.layers, l)) others.push_back(l);
  fmt::print(stderr, "note: {} has a row for every layer, and those of layers that were not placed hold experts in order: {}\n", form.name, ranges(others));
}

void print_text(const PlaceOptions& o, const std::vector<LayerResult>& results) {
  std::cout << fmt::format("{} {} on {} {} by {}; loads split evenly over replicas\n", results.front().placement.slots(), results.front().placement.slots() == 1 ? "slot" : "slots", o.ranks,
                           o.ranks == 1 ? "rank" : "ranks", o.policy);
  std::cout << fmt::format("{:>5} {:>14} {:>14} {:>9} {:>15} {:>9} {:>16} {:>9} {:>17} {:>12}\n", "layer", "max_rank_load", "mean_rank_load", "max/mean",
                           "(max-mean)/mean", "mean/max", "(max+1)/(min+1)", "std/mean", "(max-min)/tokens", "most_copies");
  for (const LayerResult& r : results) {
    double total = 0;
    for (const double l : r.rank_load) total += l;
    std::size_t most = 0;
    for (const std::vector<Slot>& replicas : r.placement.slots_of_expert) most = std::max(most, replicas.size());
    const LoadMetrics& m = r.metrics;
    std::cout << fmt::format("{:>5} {:>14.1f} {:>14.1f} {:>9.3f} {:>15.3f} {:>9.3f} {:>16.3f} {:>9.3f} {:>17.4f} {:>12}\n", r.layer,
                             *std::ranges::max_element(r.rank_load), total / static_cast<double>(r.rank_load.size()), m.max_over_mean,
                             m.max_minus_mean_over_mean, m.mean_over_max, m.max_plus_1_over_min_plus_1, m.std_over_mean, m.max_minus_min_over_tokens, most);
  }
}

}  // namespace

void place(CLI::App& app, const Catalogs& catalogs, int& result) {
  CLI::App* verb = app.add_subcommand("place", "Place the experts of a load dump on ranks and say how even the load is");
  const auto o = std::make_shared<PlaceOptions>();
  verb->add_option("--loads", o->loads, "JSON file with logical_count [[layer][expert]]")->required();
  verb->add_option("--slots", o->slots, "slots over all ranks, one expert replica each; without it, as many as the policy takes");
  verb->add_option("--ranks", o->ranks, "ranks")->required();
  verb->add_option("--nodes", o->nodes, "nodes the ranks are on")->required();
  verb->add_option("--groups", o->groups, "expert groups of the gate, for policies that use them");
  verb->add_option("--policy", o->policy, "placement policy, see `epsim list placement`; with settings as YAML, such as '{eplb: {slots: 288}}'")->required();
  verb->add_option("--seed", o->seed, "seed of policies that draw")->capture_default_str();
  verb->add_option("--format", o->format, "text or json")->check(CLI::IsMember({"text", "json"}))->capture_default_str();
  std::string forms;
  for (const DeploymentFormat& f : deployment_formats()) forms += fmt::format("{}{}: {}", forms.empty() ? "" : "; ", f.name, f.summary);
  verb->add_option("--export", o->as, "also write the placement for another program, to --out; " + forms);
  verb->add_option("--out", o->out, "the file that --export writes");
  verb->footer("Example: epsim place --loads counts.json --slots 288 --ranks 32 --nodes 4 --groups 8 --policy eplb --format json");
  verb->callback([o, &catalogs, &result] {
    if (o->as.empty() && !o->out.empty()) throw InputError(typed("--out", o->out).at, "say in which form, as --export");
    const DeploymentFormat* form = o->as.empty() ? nullptr : &read_export(*o);
    const std::vector<LayerResult> results = place_all(*o, catalogs.placement);
    if (form) write_file(o->out, "--out", form->write(deployment(results), typed("--export", o->as).at));
    if (o->format == "json")
      std::cout << to_json(results).dump() << '\n';
    else
      print_text(*o, results);
    if (form) say_export(*form, deployment(results), o->out);
    result = kOk;
  });
}

}  // namespace epsim::verb
