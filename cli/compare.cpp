#include <algorithm>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>
#include <set>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "analysis/compare.h"
#include "cli/cli.h"
#include "cli/play_all.h"
#include "cli/spec.h"
#include "cli/output.h"

namespace epsim {
namespace {

struct Options {
  std::string file, out, format = "text";
  std::vector<std::string> set, over, fail_above;
  int seeds = 1;
};

/// A figure that no point may exceed.
struct Limit {
  std::string field;
  double most = 0;
};

/// Reads "field=number"; all problems are reported at once.
std::vector<Limit> read_limits(const std::vector<std::string>& texts) {
  Diagnostics problems;
  std::vector<Limit> limits;
  std::vector<std::string> names;
  for (const PointField& field : point_fields()) names.emplace_back(field.name);
  for (const std::string& text : texts) {
    const auto source = std::make_shared<SourceText>(SourceText{"--fail-above", text});
    const std::size_t equals = std::min(text.find('='), text.size());
    const std::string field = text.substr(0, equals);
    const std::optional<double> most = equals < text.size() ? parse_number(text.substr(equals + 1)) : std::nullopt;
    if (std::find(names.begin(), names.end(), field) == names.end())
      problems.add({source, 1, 1}, fmt::format("there is no figure `{}`{}", field, suggest(field, names)));
    else if (field == "bottleneck")
      problems.add({source, 1, 1}, "`bottleneck` is words: take a figure that is a number, such as rank_load_max_over_mean=1.3");
    else if (!most)
      problems.add({source, 1, static_cast<int>(equals) + 2}, "expected field=number, such as rank_load_max_over_mean=1.3");
    else
      limits.push_back({field, *most});
  }
  problems.check();
  return limits;
}

/// Says which points exceed a limit, and which have no such figure.
bool passes(const Comparison& comparison, const std::vector<Limit>& limits) {
  bool passed = true;
  for (const Limit& limit : limits)
    for (const PointField& field : point_fields()) {
      if (field.name != limit.field) continue;
      for (const ComparedPoint& point : comparison.points) {
        const FieldValue value = field.value(point, comparison.best());
        const bool never = value == FieldValue("never");  // above any number
        if (!never && std::holds_alternative<std::string>(value)) {
          fmt::print(stderr, "note: {} has no value at {}: --fail-above did not check it there\n", limit.field, fmt::join(point.values, ", "));
          continue;
        }
        const double number = std::holds_alternative<double>(value) ? std::get<double>(value) : std::holds_alternative<std::int64_t>(value) ? static_cast<double>(std::get<std::int64_t>(value)) : 0;
        if (!never && number <= limit.most) continue;
        passed = false;
        fmt::print(stderr, "epsim: {} is {} at {}, above {}\n", limit.field, never ? "never" : format_number(number), fmt::join(point.values, ", "), format_number(limit.most));
      }
    }
  return passed;
}

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
      const std::uint64_t seed = experiments.back().seed;
      for (int more = 1; more < options.seeds; ++more) {
        std::vector<std::string> with_seed = overrides;
        std::erase_if(with_seed, [](const std::string& assignment) { return assignment.starts_with("seed="); });
        with_seed.push_back(fmt::format("seed={}", seed + static_cast<std::uint64_t>(more)));
        experiments.push_back(read_experiment(file, with_seed, catalogs));
      }
    } catch (const InputError& error) {
      for (Diagnostic problem : error.problems()) {
        const bool typed_as_set = problem.at.source && problem.at.source->name == "--set" && std::find(overrides.begin(), varied, problem.at.source->text) != varied;
        const bool of_axis = problem.at.source && problem.at.source->name == "--set" && !typed_as_set;
        if (of_axis && problem.message.starts_with("expected the name of a part") && problem.at.source->text.find("=[") != std::string::npos) problem.message += "; give several with commas between them, without brackets around all";
        if (of_axis) problem.at.source = std::make_shared<SourceText>(SourceText{"--over", problem.at.source->text});
        // What is wrong with an axis's key is wrong at each of its values: the message alone tells problems apart there.
        if (said.insert(of_axis ? problem.message : render(problem)).second) problems.push_back(problem);
      }
    }
  }
  if (!problems.empty()) throw InputError(std::move(problems));
  for (const Experiment& e : experiments)
    if (e.eval.count() != experiments.front().eval.count())
      throw InputError({std::make_shared<SourceText>(SourceText{"--over", options.over.front()}), 1, 1}, "points are compared batch by batch, and these play different numbers of batches");
  return experiments;
}

void write(std::ostream& out, const Comparison& comparison, const std::string& format) {
  if (format == "json")
    write_json(out, comparison);
  else if (format == "csv")
    write_csv(out, comparison);
  else
    write_text(out, comparison);
}

/// What a fact of the experiments is at all points; `otherwise` where they differ.
template <class Fact, class T>
T common(const std::vector<Experiment>& experiments, Fact fact, T otherwise) {
  const T first = fact(experiments.front());
  return std::all_of(experiments.begin(), experiments.end(), [&](const Experiment& e) { return fact(e) == first; }) ? first : otherwise;
}

/// "64 ranks in 8 nodes of h800", without what differs between points.
std::string machine_of(const std::vector<Experiment>& experiments) {
  const int ranks = common(experiments, [](const Experiment& e) { return e.topology.ranks(); }, 0), nodes = common(experiments, [](const Experiment& e) { return e.topology.nodes(); }, 0);
  const std::string device = common(experiments, [](const Experiment& e) { return std::string(e.topology.device().name); }, std::string());
  std::string machine = ranks > 0 ? fmt::format("{} {}", ranks, ranks == 1 ? "rank" : "ranks") : "";
  if (nodes > 0) machine += fmt::format("{}{} {}", machine.empty() ? "" : " in ", nodes, nodes == 1 ? "node" : "nodes");
  return machine + (machine.empty() || device.empty() ? "" : " of ") + device;
}

int compare_points(const Options& options, const Catalogs& catalogs) {
  Comparison comparison;
  comparison.axes = read_axes(options.over);
  const auto points = grid(comparison.axes);
  const std::vector<Limit> limits = read_limits(options.fail_above);
  const std::vector<Experiment> experiments = read_points(options, comparison.axes, points, catalogs);
  std::unique_ptr<OutputFolder> folder;
  if (!options.out.empty()) folder = std::make_unique<OutputFolder>(options.out, "--out");

  const Experiment& first = experiments.front();
  print_notes(first);
  comparison.name = first.name;
  comparison.model = common(experiments, [](const Experiment& e) { return e.model.name; }, std::string());
  comparison.machine = machine_of(experiments);
  comparison.layers = common(experiments, [](const Experiment& e) { return static_cast<int>(e.layers.size()); }, 0);
  comparison.batches = first.eval.count();
  comparison.seed = first.seed;
  for (std::size_t i = 0; i < experiments.size(); i += static_cast<std::size_t>(options.seeds))
    if (experiments[i].seed != first.seed) comparison.seed.reset();
  std::vector<RunMetrics> played = play_all(experiments);
  std::vector<std::vector<RunMetrics>> runs;  // [points][seeds]
  for (auto of_point = played.begin(); of_point != played.end(); of_point += options.seeds) runs.emplace_back(std::make_move_iterator(of_point), std::make_move_iterator(of_point + options.seeds));
  comparison.repeated_seeds = forget_repeated_seeds(runs), comparison.seeds = options.seeds - comparison.repeated_seeds;
  for (std::size_t p = 0; p < points.size(); ++p) comparison.points.push_back(compared_point(points[p], runs[p], experiments[p * static_cast<std::size_t>(options.seeds)].topology.device().memory_bytes.value));

  if (folder) {
    write(folder->file("compare.csv"), comparison, "csv");
    write(folder->file("compare.json"), comparison, "json");
    folder->write("compare.svg", to_svg(figure(comparison)));
    folder->commit();
  }
  write(std::cout, comparison, options.format);  // after the folder: whoever reads this may stop reading
  return passes(comparison, limits) ? kOk : kFailed;
}

}  // namespace

void verb::compare(CLI::App& app, const Catalogs& catalogs, int& result) {
  CLI::App* sub = app.add_subcommand("compare", "Simulate an experiment over a grid of settings and lay the times side by side");
  auto options = std::make_shared<Options>();
  sub->add_option("FILE", options->file, "experiment file (YAML)")->required();
  sub->add_option("--over", options->over, "a setting and the values to compare; give it again for a grid")->required()->allow_extra_args(false)->type_name("KEY=A,B,...");
  sub->add_option("--set", options->set, "override a setting at every point")->allow_extra_args(false)->type_name("KEY=VALUE");
  add_batch_ranges(*sub, {options, &options->set});
  sub->add_option("--seeds", options->seeds, "play every point with this many seeds, from the experiment's own; samples are paired by seed and batch")->check(CLI::Range(1, 10'000))->capture_default_str();
  sub->add_option("--fail-above", options->fail_above, "exit with status 1 where this figure of compare.csv is above a number at any point, such as rank_load_max_over_mean=1.3")->allow_extra_args(false)->type_name("FIGURE=NUMBER");
  sub->add_option("--out", options->out, "write compare.csv, compare.json and compare.svg here")->type_name("DIR")->check(names_a_folder);
  sub->add_option("--format", options->format, "what to print")->check(CLI::IsMember({"text", "json", "csv"}))->capture_default_str();
  sub->footer("Example: epsim compare examples/deepseek-v3.yaml --over placement=contiguous,eplb --over capacity.factor=1,1.25,2 --out results");
  sub->callback([options, &catalogs, &result] { result = compare_points(*options, catalogs); });
}

}  // namespace epsim
