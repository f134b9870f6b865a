#include <algorithm>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/cli.h"
#include "cli/output.h"
#include "cli/together.h"
#include "sim/mpi/dump.h"
#include "sim/mpi/execute.h"

namespace epsim {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string file, format = "text";
  std::vector<std::string> overrides;
  ExecuteOptions execute;
};

Json stages(const StageSeconds& s) { return {{"dispatch_s", s.dispatch}, {"compute_s", s.compute}, {"combine_s", s.combine}}; }

Json to_json(const BackwardExecution& b) {
  return {{"bit_identical", b.bit_identical}, {"max_abs_error", b.max_abs_error}, {"rows_match_plan", b.rows_match_plan}, {"rows_moved", b.rows_moved}, {"bytes_moved", b.bytes_moved}, {"measured", stages(b.measured)}};
}

Json to_json(const LayerExecution& l) {
  Json json = {{"layer", l.layer},
          {"plan_digest", l.plan_digest},
          {"bit_identical", l.bit_identical},
          {"max_abs_error", l.max_abs_error},
          {"max_abs_error_plain_order", l.max_abs_error_plain},
          {"rows_match_plan", l.rows_match_plan},
          {"rows_moved", l.rows_moved},
          {"bytes_moved", l.bytes_moved},
          {"measured", stages(l.measured)},
          {"simulated", stages(l.simulated)}};
  if (l.backward) json["backward"] = to_json(*l.backward);
  return json;
}

bool proven(const LayerExecution& l) { return l.bit_identical && l.rows_match_plan && (!l.backward || (l.backward->bit_identical && l.backward->rows_match_plan)); }

void print_json(const Experiment& e, const World& world, const std::vector<LayerExecution>& layers) {
  // The first layer's fields stand at the top as well: most executions have one layer.
  Json out = to_json(layers.front());
  out.erase("layer");
  for (const LayerExecution& l : layers) {
    out["bit_identical"] = out["bit_identical"].get<bool>() && l.bit_identical;
    out["rows_match_plan"] = out["rows_match_plan"].get<bool>() && l.rows_match_plan;
    out["max_abs_error"] = std::max(out["max_abs_error"].get<double>(), l.max_abs_error);
    out["max_abs_error_plain_order"] = std::max(out["max_abs_error_plain_order"].get<double>(), l.max_abs_error_plain);
    if (!l.backward) continue;
    Json& backward = out["backward"];
    backward["bit_identical"] = backward["bit_identical"].get<bool>() && l.backward->bit_identical;
    backward["rows_match_plan"] = backward["rows_match_plan"].get<bool>() && l.backward->rows_match_plan;
    backward["max_abs_error"] = std::max(backward["max_abs_error"].get<double>(), l.backward->max_abs_error);
  }
  out["processes"] = world.size();
  out["plan_ranks"] = e.topology.ranks();
  out["tokens"] = e.source.tokens();
  out["seed"] = e.seed;
  out["layers"] = Json::array();
  for (const LayerExecution& l : layers) out["layers"].push_back(to_json(l));
  fmt::print("{}\n", out.dump(2));
}

void print_text(const Experiment& e, const World& world, const std::vector<LayerExecution>& layers) {
  fmt::print("{}: {} plan {} on {} MPI process{}, {} tokens, hidden {}, expert width {}\n", e.name, e.topology.ranks(), e.topology.ranks() == 1 ? "rank" : "ranks", world.size(), world.size() == 1 ? "" : "es", e.source.tokens(),
             e.execute_hidden, e.execute_ffn);
  for (const LayerExecution& l : layers) {
    fmt::print("layer {}  plan {}\n", l.layer, l.plan_digest);
    fmt::print("  result      {}, largest difference {:g} (in plain choice order {:.2g})\n", l.bit_identical ? "equals the serial reference bit for bit" : "DIFFERS from the serial reference", l.max_abs_error,
               l.max_abs_error_plain);
    fmt::print("  rows        {}: {} rows, {} between ranks\n", l.rows_match_plan ? "as planned for every pair" : "NOT AS PLANNED", l.rows_moved, format_bytes(static_cast<double>(l.bytes_moved)));
    fmt::print("  {:<11} {:>12} {:>12} {:>12}\n", "", "dispatch", "compute", "combine");
    fmt::print("  {:<11} {:>12} {:>12} {:>12}\n", "measured", format_seconds(l.measured.dispatch), format_seconds(l.measured.compute), format_seconds(l.measured.combine));
    fmt::print("  {:<11} {:>12} {:>12} {:>12}   (on the file's cluster, priced at float32)\n", "simulated", format_seconds(l.simulated.dispatch), format_seconds(l.simulated.compute),
               format_seconds(l.simulated.combine));
    if (!l.backward) continue;
    const BackwardExecution& b = *l.backward;
    fmt::print("  gradients   {}, largest difference {:g}\n", b.bit_identical ? "equal the serial reference bit for bit" : "DIFFER from the serial reference", b.max_abs_error);
    fmt::print("  rows        {}: {} rows, {} between ranks\n", b.rows_match_plan ? "as planned for every pair" : "NOT AS PLANNED", b.rows_moved, format_bytes(static_cast<double>(b.bytes_moved)));
    fmt::print("  {:<11} {:>12} {:>12} {:>12}\n", "measured", format_seconds(b.measured.dispatch), format_seconds(b.measured.compute), format_seconds(b.measured.combine));
  }
}

int run_execute(const Options& options, const Catalogs& catalogs) {
  Experiment experiment;
  return run_together({
      .read = [&](const World& world) {
        experiment = read_experiment(read_text(options.file), options.overrides, catalogs);
        check_execution(world, experiment, options.execute);
      },
      .prepare = [&] {
        if (!options.execute.dump.empty()) check_dump_folder(options.execute.dump);
      },
      .work = [&](World& world) -> int {
        if (world.root()) print_notes(experiment);
        if (const BatchRange& eval = experiment.eval; world.root() && eval.count() > 1)
          fmt::print(stderr, "note: one batch is executed, batch {} of {} to {}; `eval` takes another, such as --set eval={}:{}\n", eval.first, eval.first, eval.last - 1, eval.first + 1, eval.first + 2);
        if (world.root() && !world.launched())
          fmt::print(stderr, "note: not started by mpirun, so one process hosts all {} plan ranks; try mpirun -n {} epsim execute ...\n", experiment.topology.ranks(), std::min(4, experiment.topology.ranks()));
        const std::vector<LayerExecution> layers = execute(world, experiment, options.execute);
        if (!world.root()) return kOk;
        options.format == "json" ? print_json(experiment, world, layers) : print_text(experiment, world, layers);
        return std::all_of(layers.begin(), layers.end(), proven) ? kOk : kCheckFailed;
      },
  });
}

}  // namespace

void verb::execute(CLI::App& app, const Catalogs& catalogs, int& result) {
  CLI::App* sub = app.add_subcommand("execute", "Execute an experiment's plan with real experts on MPI processes and compare with the serial reference");
  sub->footer("Example: mpirun -n 4 epsim execute examples/execute.yaml --format json\nAny number of processes up to the experiment's ranks; each hosts a block of them.\nExit code 3: the result, the gradients or the rows differ from what was planned.");
  auto options = std::make_shared<Options>();
  sub->add_option("file", options->file, "Experiment file (YAML)")->required();
  sub->add_option("--set", options->overrides, "Override a setting: key=value, such as placement=eplb or placement.slots=20 (repeatable)");
  sub->add_option("--format", options->format, "text or json")->check(CLI::IsMember({"text", "json"}));
  sub->add_option("--dump", options->execute.dump, "Folder for dump.npz: everything needed to recompute the layer")->check(names_a_folder);
  sub->add_flag("--backward", options->execute.backward, "Play the backward pass of sum(y * r), with seeded r, over the same plan as well, and compare the gradients");
  sub->add_option("--repeat", options->execute.repeats, "Play each layer this many times and report the median")->check(CLI::Range(1, 1'000'000));
  sub->callback([options, &catalogs, &result] { result = run_execute(*options, catalogs); });
}

}  // namespace epsim
