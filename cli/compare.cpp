#include <algorithm>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include "analysis/compare.h"
#include "base/parallel.h"
#include "cli/cli.h"
#include "cli/output.h"

namespace epsim {
namespace {

struct Options {
  std::string file, out, format = "text";
  std::vector<std::string> set, over;
};

/// All combinations of the axes' values, last axis fastest.
std::vector<std::vector<std::string>> grid(const std::vector<Axis>& axes) {
  std::vector<std::vector<std::string>> points = {{}};
  for (const Axis& axis : axes) {
    std::vector<std::vector<std::string>> longer;
    for (const auto& point : points)
      for (const std::string& value : axis.values) {
        longer.push_back(point);
        longer.back().push_back(value);
      }
    points = std::move(longer);
  }
  return points;
}

/// Reads the axes; all problems are reported at once.
std::vector<Axis> read_axes(const std::vector<std::string>& over) {
  Diagnostics problems;
  std::vector<Axis> axes;
  for (const std::string& text : over) {
    try {
      Axis axis = parse_axis(text);
      if (std::any_of(axes.begin(), axes.end(), [&](const Axis& a) { return a.key == axis.key; }))
        problems.add({std::make_shared<SourceText>(SourceText{"--over", text}), 1, 1}, fmt::format("`{}` is given twice", axis.key));
      axes.push_back(std::move(axis));
    } catch (const InputError& error) {
      problems.add(error);
    }
  }
  problems.check();
  return axes;
}

/// Reads the experiment at every point before anything runs, so that a bad value is found at once; a problem that all points share is said once.
std::vector<Experiment> read_points(const Options& options, const std::vector<Axis>& axes, const std::vector<std::vector<std::string>>& points, const Catalogs& catalogs) {
  const auto file = read_text(options.file);
  std::vector<Experiment> experiments;
  std::vector<Diagnostic> problems;
  std::set<std::string> said;
  for (const auto& values : points) {
    std::vector<std::string> overrides = options.set;
    for (std::size_t a = 0; a < axes.size(); ++a) overrides.push_back(axes[a].key + "=" + values[a]);
    const auto varied = overrides.begin() + static_cast<std::ptrdiff_t>(options.set.size());
    try {
      experiments.push_back(read_experiment(file, overrides, catalogs));
    } catch (const InputError& error) {
      for (Diagnostic problem : error.problems()) {
        const bool typed_as_set = problem.at.source && problem.at.source->name == "--set" && std::find(overrides.begin(), varied, problem.at.source->text) != varied;
        const bool of_axis = problem.at.source && problem.at.source->name == "--set" && !typed_as_set;
        if (of_axis) problem.at.source = std::make_shared<SourceText>(SourceText{"--over", problem.at.source->text});
        // What is wrong with an axis's key is wrong at each of its values: the message alone tells problems apart there.
        if (said.insert(of_axis ? problem.message : render(problem)).second) problems.push_back(problem);
      }
    }
  }
  if (!problems.empty()) throw InputError(std::move(problems));
  return experiments;
}

/// Equal for experiments whose tokens make the same choices.
std::string routing_key(const Experiment& e) {
  std::string key = fmt::format("{} {}", e.seed, e.topology.ranks());
  for (const char* part : {"model", "source", "router", "execute", "layers"})
    if (const Setting* setting = e.resolved.find(part)) key += fmt::format("\n{}: {}", part, to_yaml(*setting));
  return key;
}

/// Says how far it is, on one line of a terminal.
class Progress {
 public:
  explicit Progress(std::size_t steps) : steps_(steps), shown_(::isatty(STDERR_FILENO) != 0) { say(); }
  ~Progress() {
    if (shown_) std::fprintf(stderr, "\r\033[K");
  }
  void step() {
    const std::lock_guard lock(mutex_);
    ++done_;
    say();
  }

 private:
  void say() const {
    if (shown_) std::fprintf(stderr, "\r%zu of %zu layers simulated", done_, steps_);
  }
  std::mutex mutex_;
  std::size_t steps_, done_ = 0;
  bool shown_;
};

/// Runs every layer of every experiment. Experiments with the same choices are routed once.
std::vector<RunMetrics> run_points(const std::vector<Experiment>& experiments) {
  std::map<std::string, std::vector<std::size_t>> same_choices;
  std::size_t steps = 0;
  for (std::size_t i = 0; i < experiments.size(); ++i) {
    same_choices[routing_key(experiments[i])].push_back(i);
    steps += experiments[i].layers.size();
  }
  std::vector<RunMetrics> runs(experiments.size());
  Progress progress(steps);
  for (const auto& [key, members] : same_choices) {
    const Experiment& first = experiments[members.front()];
    for (const int layer : first.layers) {
      Routing routing = make_routing(first.source, first.model.num_experts, first.model.top_k);
      route_layer(first, layer, 0, first.topology.ranks(), routing);
      parallel_for(static_cast<std::int64_t>(members.size()), [&](std::int64_t m) {
        const Experiment& experiment = experiments[members[m]];
        runs[members[m]].add(measure(experiment, run_plan(experiment, plan_layer(experiment, layer, routing), Timeline::Detail::rank)));
        progress.step();
      });
    }
  }
  return runs;
}

void write(std::ostream& out, const Comparison& comparison, const std::string& format) {
  if (format == "json")
    write_json(out, comparison);
  else if (format == "csv")
    write_csv(out, comparison);
  else
    write_text(out, comparison);
}

int compare_points(const Options& options, const Catalogs& catalogs) {
  Comparison comparison;
  comparison.axes = read_axes(options.over);
  const auto points = grid(comparison.axes);
  const std::vector<Experiment> experiments = read_points(options, comparison.axes, points, catalogs);
  std::unique_ptr<OutputFolder> folder;
  if (!options.out.empty()) folder = std::make_unique<OutputFolder>(options.out, "--out");

  const Experiment& first = experiments.front();
  print_notes(first);
  comparison.name = first.name;
  comparison.model = first.model.name;
  comparison.machine = fmt::format("{} ranks in {} {} of {}", first.topology.ranks(), first.topology.nodes(), first.topology.nodes() == 1 ? "node" : "nodes",
                                   first.topology.device().name);
  comparison.seed = first.seed;
  comparison.layers = static_cast<int>(first.layers.size());
  const std::vector<RunMetrics> runs = run_points(experiments);
  for (std::size_t i = 0; i < runs.size(); ++i) comparison.points.push_back(compared_point(points[i], runs[i]));

  if (folder) {
    write(folder->file("compare.csv"), comparison, "csv");
    write(folder->file("compare.json"), comparison, "json");
    folder->write("compare.svg", to_svg(figure(comparison)));
    folder->commit();
  }
  write(std::cout, comparison, options.format);  // after the folder: whoever reads this may stop reading
  return kOk;
}

}  // namespace

void verb::compare(CLI::App& app, const Catalogs& catalogs, int& result) {
  CLI::App* sub = app.add_subcommand("compare", "Simulate an experiment over a grid of settings and lay the times side by side");
  auto options = std::make_shared<Options>();
  sub->add_option("FILE", options->file, "experiment file (YAML)")->required();
  sub->add_option("--over", options->over, "a setting and the values to compare; give it again for a grid")->required()->allow_extra_args(false)->type_name("KEY=A,B,...");
  sub->add_option("--set", options->set, "override a setting at every point")->allow_extra_args(false)->type_name("KEY=VALUE");
  sub->add_option("--out", options->out, "write compare.csv, compare.json and compare.svg here")->type_name("DIR")->check(names_a_folder);
  sub->add_option("--format", options->format, "what to print")->check(CLI::IsMember({"text", "json", "csv"}))->capture_default_str();
  sub->footer("Example: epsim compare examples/deepseek-v3.yaml --over placement=contiguous,eplb --over capacity.factor=1,1.25,2 --out results");
  sub->callback([options, &catalogs, &result] { result = compare_points(*options, catalogs); });
}

}  // namespace epsim
