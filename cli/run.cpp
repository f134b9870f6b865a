#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <iostream>
#include <memory>
#include <optional>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "analysis/export/trace.h"
#include "analysis/export/writers.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "cli/saved_settings.h"
#include "cli/spec.h"

namespace epsim {
namespace {

struct Options {
  std::string file, out, format = "text";
  std::vector<std::string> set;
  int trace_layers = 4, bins = 0;
};

/// Refuses what no .npz takes before anything is simulated.
void check_size(const MatrixCollector& matrices, const Experiment& experiment, const Options& options) {
  const std::int64_t layers = static_cast<std::int64_t>(experiment.layers.size()) * experiment.eval.count(),
                     over_time = options.bins > 0 ? std::min<std::int64_t>(layers, options.trace_layers) : 0;
  const double least = matrices.least_bytes(over_time, options.bins);
  if (least < NpzWriter::kMostBytes) return;
  const bool by_bins = matrices.least_bytes(0, 0) < NpzWriter::kMostBytes;
  throw InputError({std::make_shared<SourceText>(SourceText{by_bins ? fmt::format("--bins {}", options.bins) : "--out " + options.out, ""}), 0, 0},
                   fmt::format("matrices.npz would take {} or more, and an .npz takes at most 4 GiB: {}", format_bytes(least),
                               by_bins ? "take fewer --bins or --trace-layers" : "play fewer layers or batches at a time"));
}

void run_experiment(const Options& options, const Catalogs& catalogs) {
  const Experiment experiment = read_experiment(read_text(options.file), options.set, catalogs);
  print_notes(experiment);
  std::optional<OutputFolder> out;
  std::optional<TraceWriter> trace;
  std::optional<MatrixCollector> matrices;
  if (!options.out.empty()) {
    matrices.emplace(experiment);
    check_size(*matrices, experiment, options);
    out.emplace(options.out, "--out");
    trace.emplace(out->file("trace.pftrace"), experiment.topology);
  }

  RunMetrics metrics;
  const MachineCuts cuts = cuts_of(experiment.topology, experiment.exchange);
  Time offset;
  const bool progress = isatty(STDERR_FILENO) != 0 && experiment.layers.size() * static_cast<std::size_t>(experiment.eval.count()) > 1;
  run(experiment, options.bins > 0 ? Timeline::Detail::flow : Timeline::Detail::rank, [&](LayerRun& layer) {
    LayerMetrics measured = measure(experiment, layer, cuts);
    if (out) {
      if (static_cast<int>(metrics.layers.size()) < options.trace_layers) {
        trace->add(layer, offset);
        const auto use = [&](Stage stage) { return link_use(layer.timeline, layer.schedule, stage, experiment.topology, options.bins); };
        if (options.bins > 0) matrices->add_over_time(use(Stage::dispatch), use(Stage::combine));
      }
      offset += layer.timeline.end;
      matrices->add(measured, layer.plan.placement);
    }
    metrics.add(std::move(measured));
    if (progress) fmt::print(stderr, "\rlayer {} of {}\033[K", metrics.layers.size(), experiment.layers.size() * static_cast<std::size_t>(experiment.eval.count())), std::fflush(stderr);
    return true;
  });
  if (progress) fmt::print(stderr, "\r\033[K");

  std::exception_ptr unwritten;  // what was computed is printed even so
  if (out) try {
      write_json(out->file("metrics.json"), experiment, metrics);
      write_csv(out->file("metrics.csv"), metrics);
      write_text(out->file("summary.txt"), experiment, metrics);
      out->write("matrices.npz", matrices->bytes());
      out->write("experiment.yaml", saved_settings(experiment.resolved, options.out, catalogs));
      try {
        trace->finish();
      } catch (const std::runtime_error&) {  // its stream is bad: `commit` says which file that is, and why
      }
      out->commit();
    } catch (const std::exception&) {
      unwritten = std::current_exception();
    }
  if (options.format == "json")
    write_json(std::cout, experiment, metrics);
  else if (options.format == "csv")
    write_csv(std::cout, metrics);
  else
    write_text(std::cout, experiment, metrics);
  if (unwritten) std::rethrow_exception(unwritten);
  if (out) {
    fmt::print(stderr, "wrote {}: summary.txt, metrics.json, metrics.csv, matrices.npz, experiment.yaml, trace.pftrace", options.out);
    if (static_cast<int>(metrics.layers.size()) > options.trace_layers)
      fmt::print(stderr, " (the first {} of {} layers; --trace-layers takes more)", options.trace_layers, metrics.layers.size());
    fmt::print(stderr, "\n");
  }
}

}  // namespace

void verb::run(CLI::App& app, const Catalogs& catalogs, int& result) {
  CLI::App* sub = app.add_subcommand("run", "Simulate an experiment: time, traffic, load, drops and what limits each layer");
  sub->footer("Example: epsim run examples/deepseek-v3.yaml --set placement=contiguous --out results/contiguous");
  auto options = std::make_shared<Options>();
  sub->add_option("file", options->file, "Experiment file (YAML)")->required();
  sub->add_option("--set", options->set, "Override a setting: key=value, such as placement=eplb or placement.slots=320 (repeatable)");
  add_batch_ranges(*sub, {options, &options->set});
  CLI::Option* out = sub->add_option("--out", options->out, "Folder for metrics.json, metrics.csv, matrices.npz, trace.pftrace and summary.txt")->check(names_a_folder);
  sub->add_option("--format", options->format, "What to print: text, json or csv")->check(CLI::IsMember({"text", "json", "csv"}));
  sub->add_option("--trace-layers", options->trace_layers, "Layers to write to the trace")->check(CLI::Range(0, 100'000))->needs(out);
  sub->add_option("--bins", options->bins, "Equal parts of each exchange's time for which matrices.npz tells the bytes on each link, of the layers in the trace")->check(CLI::Range(1, 10'000))->needs(out);
  sub->callback([options, &catalogs, &result] {
    run_experiment(*options, catalogs);
    result = kOk;
  });
}

}  // namespace epsim
