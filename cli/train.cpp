#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <filesystem>
#include <memory>
#include <optional>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "analysis/plot/lines.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "cli/output_file.h"
#include "cli/saved_settings.h"
#include "cli/together.h"
#include "sim/train/checkpoint.h"
#include "workloads/import/ours.h"
#include "workloads/import/routing_trace.h"

namespace epsim {
namespace {

struct Options {
  std::string file, out;
  std::vector<std::string> set, text;
  bool resume = false;
};

/// A run that has ended.
struct Trained {
  const Training* training;
  TrainState state;
  std::optional<Recording> choices;  ///< of held-out text
};

/// The experts of this process: an equal block. `world` must outlive it.
ExpertBlock block_of(World& world, int experts) {
  const auto begin = [&world, experts](int process) { return static_cast<int>(std::int64_t{experts} * process / world.size()); };
  return {begin(world.rank()), begin(world.rank() + 1), [&world, begin](std::span<float> values, std::int64_t width, std::span<const std::int64_t> first_row) {
            std::vector<std::int64_t> counts;
            for (int p = 0; p < world.size(); ++p) counts.push_back((first_row[static_cast<std::size_t>(begin(p + 1))] - first_row[static_cast<std::size_t>(begin(p))]) * width);
            world.all_gather(values, counts);
          }};
}

std::filesystem::path folder_of(const Options& o, const TrainingFile& file, const Training& training) {
  return file.runs.size() == 1 && training.variant.empty() ? std::filesystem::path(o.out) : std::filesystem::path(o.out) / training.name;
}

/// The checkpoint of a run, where there is one.
std::optional<std::string> checkpoint_of(const Options& o, const TrainingFile& file, const Training& training) {
  if (o.out.empty()) return {};
  const std::string path = (folder_of(o, file, training) / "checkpoint.npz").string();
  return std::filesystem::exists(path) ? std::optional(path) : std::nullopt;
}

/// Where every run begins: at its checkpoint, or at the beginning.
std::vector<TrainState> beginnings(const Options& o, const TrainingFile& file) {
  const auto option = [&](const char* name, const std::string& value) { return Location{std::make_shared<const SourceText>(SourceText{name, value}), 1, 1}; };
  if (o.resume && o.out.empty()) throw InputError(option("--resume", ""), "checkpoints are in a folder: say --out as well");
  Diagnostics problems;
  std::vector<TrainState> states;
  for (const Training& run : file.runs) try {
      const auto path = checkpoint_of(o, file, run);
      if (path && !o.resume) throw InputError(option("--out", o.out), fmt::format("there is {} already: go on from it with --resume, or take another folder", *path));
      states.push_back(path ? read_checkpoint(run, read_text(*path)) : begin_training(run));
    } catch (const InputError& e) {
      problems.add(e);
    }
  problems.check();
  return states;
}

/// Trains to the end. `speaks` says who writes: one of several processes.
Trained train(const Training& t, TrainState state, const std::string& checkpoint_file, bool speaks) {
  const auto clock = [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); };
  const double begun = clock();
  const int first = state.step;
  while (state.step < t.steps) {
    step(t, state);
    const bool last = state.step == t.steps;
    StepRecord& record = state.records.back();
    if (!std::isfinite(record.loss)) throw std::runtime_error(fmt::format("{}: the loss of step {} is not a finite number: take a smaller learning rate", t.name, state.step));
    if (last || state.step % t.evaluate_every == 0) {
      const Evaluation seen = evaluate(t, state);
      record.held_out_loss = seen.loss, record.similarity = seen.similarity;
      if (speaks)
        fmt::print(stderr, "{}  step {}/{}  loss {:.4f}  held out {:.4f}  dropped {:.1f} %  imbalance {:.2f}  {:.0f} s left\n", t.name, state.step, t.steps, record.loss, seen.loss, 100 * record.drop_rate,
                   record.imbalance, (clock() - begun) / (state.step - first) * (t.steps - state.step));
    }
    if (!checkpoint_file.empty() && (last || state.step % t.checkpoint_every == 0)) {
      gather_experts(t, state);
      if (speaks) write_file(checkpoint_file, "--out", checkpoint(t, state));
    }
  }
  std::optional<Recording> choices = held_out_choices(t, state);
  return {&t, std::move(state), std::move(choices)};
}

/// The model as `epsim run` reads it beside the trace.
std::string model_json(const Training& t) {
  const LayerShape& s = t.model.shape.moe;
  const nlohmann::ordered_json json = {{"model_type", "epsim_train"},
                                       {"hidden_size", s.hidden},
                                       {"moe_intermediate_size", s.ffn},
                                       {"shared_expert_intermediate_size", s.shared_ffn},
                                       {"num_attention_heads", 1},
                                       {"num_hidden_layers", t.model.shape.layers},
                                       {"num_experts", s.experts},
                                       {"num_experts_per_tok", t.top_k},
                                       {"vocab_size", kBytes},
                                       {"torch_dtype", "float32"}};
  return json.dump(2) + "\n";
}

/// The mean of a column over the last steps, those since the last look but one.
double last_mean(const Trained& run, double StepRecord::*column) {
  const auto& records = run.state.records;
  const std::size_t count = std::min(records.size(), static_cast<std::size_t>(run.training->evaluate_every));
  double sum = 0;
  for (std::size_t i = records.size() - count; i < records.size(); ++i) sum += records[i].*column / static_cast<double>(count);
  return sum;
}

std::string summary_csv(const std::vector<Trained>& runs) {
  std::string out = "name,variant,seed,parameters,active_parameters,cross_entropy,held_out_loss,drop_rate,imbalance,unused_experts,similarity\n";
  for (const Trained& run : runs) {
    const Training& t = *run.training;
    const ParameterCount count = count_parameters(t);
    const StepRecord& last = run.state.records.back();
    out += fmt::format("{},{},{},{},{},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g}\n", t.name, t.variant, t.seed, count.all, count.active, last_mean(run, &StepRecord::cross_entropy), last.held_out_loss,
                       last_mean(run, &StepRecord::drop_rate), last_mean(run, &StepRecord::imbalance), last_mean(run, &StepRecord::unused_experts), last.similarity);
  }
  return out;
}

/// The columns over the steps at which somebody looked: what is known of every step as its mean since the look before.
std::string figure(const TrainingFile& file, const std::vector<Trained>& runs) {
  const Training& one = file.runs.front();
  LinesFigure f;
  f.title = file.title;
  f.subtitle = fmt::format("{} layers, {} steps of {} bytes; a curve a seed; imbalance and drops: means of {} steps", one.model.shape.layers, one.steps, one.batch * one.sequence,
                           std::min(one.steps, one.evaluate_every));
  f.x_title = "step", f.series = file.variants;
  if (f.series.front().empty()) f.series.front() = file.name;
  for (const std::string& name : file.panels) {
    const auto column = std::ranges::find_if(record_columns(), [&](const RecordColumn& c) { return name == c.name; });
    LinesFigure::Panel panel;
    panel.axis_title = column->title;
    panel.from_zero = name != "held_out_loss" && name != "loss" && name != "cross_entropy";
    for (const Trained& run : runs) {
      LinesFigure::Line line;
      line.series = static_cast<int>(std::ranges::find(file.variants, run.training->variant) - file.variants.begin());
      double sum = 0;
      int count = 0;
      for (std::size_t s = 0; s < run.state.records.size(); ++s) {
        const StepRecord& r = run.state.records[s];
        if (!std::isnan(r.*column->value)) sum += r.*column->value, ++count;
        if (std::isnan(r.held_out_loss)) continue;
        line.x.push_back(static_cast<double>(s + 1)), line.y.push_back(sum / count);
        sum = 0, count = 0;
      }
      panel.lines.push_back(std::move(line));
    }
    f.panels.push_back(std::move(panel));
  }
  return to_svg(f);
}

void write_all(const Options& o, const TrainingFile& file, const std::vector<Trained>& runs, const Catalogs& catalogs) {
  for (const Trained& run : runs) {
    const std::string folder = folder_of(o, file, *run.training).string();
    OutputFolder out(folder, "--out");
    out.write("steps.csv", steps_csv(run.state));
    out.write("experts.csv", experts_csv(*run.training, run.state));
    out.write("experiment.yaml", saved_settings(run.training->resolved, folder, catalogs, o.text));
    if (run.choices) out.write("trace.npz", to_trace(*run.choices)), out.write("trace.pb", to_protobuf_trace(*run.choices)), out.write("model.json", model_json(*run.training));
    out.commit();
  }
  OutputFolder out(o.out, "--out");
  out.write("summary.csv", summary_csv(runs));
  out.write("figure.svg", figure(file, runs));
  out.commit();
}

void print_table(const std::vector<Trained>& runs) {
  std::size_t width = 4;
  for (const Trained& run : runs) width = std::max(width, run.training->name.size());
  fmt::print("{:<{}}  {:>10}  {:>8}  {:>8}  {:>8}  {:>7}  {:>9}  {:>6}  {:>10}\n", "run", width, "parameters", "active", "train", "held out", "dropped", "imbalance", "unused", "similarity");
  for (const Trained& run : runs) {
    const ParameterCount count = count_parameters(*run.training);
    const StepRecord& last = run.state.records.back();
    fmt::print("{:<{}}  {:>10}  {:>8}  {:>8.4f}  {:>8.4f}  {:>5.1f} %  {:>9.2f}  {:>4.0f} %  {:>10.3f}\n", run.training->name, width, count.all, count.active, last_mean(run, &StepRecord::cross_entropy),
               last.held_out_loss, 100 * last_mean(run, &StepRecord::drop_rate), last_mean(run, &StepRecord::imbalance), 100 * last_mean(run, &StepRecord::unused_experts), last.similarity);
  }
}

/// Makes folders that are missing now, so that nothing is computed in vain.
void make_folders(const Options& o, const TrainingFile& file) {
  for (const Training& run : file.runs) OutputFolder(folder_of(o, file, run).string(), "--out").commit();
}

std::vector<Trained> train_all(const Options& o, const TrainingFile& file, std::vector<TrainState> states, bool speaks) {
  std::vector<Trained> runs;
  for (std::size_t i = 0; i < file.runs.size(); ++i)
    runs.push_back(train(file.runs[i], std::move(states[i]), o.out.empty() ? "" : (folder_of(o, file, file.runs[i]) / "checkpoint.npz").string(), speaks));
  return runs;
}

void say_and_write(const Options& o, const TrainingFile& file, const std::vector<Trained>& runs, const Catalogs& catalogs) {
  std::exception_ptr unwritten;  // what was computed is printed even so
  if (!o.out.empty()) try {
      write_all(o, file, runs, catalogs);
    } catch (const std::exception&) {
      unwritten = std::current_exception();
    }
  print_table(runs);
  if (unwritten) std::rethrow_exception(unwritten);
  for (const Trained& run : runs)
    if (!o.out.empty() && !run.choices && run.training->trace_tokens > 0)
      fmt::print(stderr, "note: {}: no trace: the router leaves choices open or chooses experts that compute nothing, or the held-out text has too few bytes for a batch\n", run.training->name);
}

void run_alone(const Options& o, const Catalogs& catalogs) {
  const TrainingFile file = read_training(read_text(o.file), o.set, o.text, catalogs);
  std::vector<TrainState> states = beginnings(o, file);
  if (!o.out.empty()) make_folders(o, file);
  say_and_write(o, file, train_all(o, file, std::move(states), true), catalogs);
}

/// On the processes of a launcher, each with a block of every layer's experts.
int run_distributed(const Options& o, const Catalogs& catalogs) {
  TrainingFile file;
  std::vector<TrainState> states;
  return run_together({
      .read = [&](const World&) {
        file = read_training(read_text(o.file), o.set, o.text, catalogs);
        states = beginnings(o, file);
      },
      .prepare = [&] {
        if (!o.out.empty()) make_folders(o, file);
      },
      .work = [&](World& world) -> int {
        std::string begun;
        for (const TrainState& state : states) begun += fmt::format("{} ", state.step);
        if (!world.all_equal(begun)) throw std::runtime_error("processes see different checkpoints: --out must be a folder that all of them share");
        for (Training& run : file.runs) run.model.moe.block = block_of(world, run.model.shape.moe.experts);
        const std::vector<Trained> runs = train_all(o, file, std::move(states), world.root());
        if (world.root()) say_and_write(o, file, runs, catalogs);
        world.barrier();
        return kOk;
      },
  });
}

}  // namespace

/// `epsim train`: a small byte-level language model of MoE layers learns a text.
void verb::train(CLI::App& app, const Catalogs& catalogs, int& result) {
  const auto o = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("train", "Train a small language model of MoE layers, and record how it routes");
  verb->add_option("file", o->file, "Experiment of a training (YAML; docs/training.md)")->required();
  verb->add_option("--set", o->set, "Override a setting: key=value, such as steps=100 or model.experts=16 (repeatable)");
  verb->add_option("--text", o->text, "Text files to learn, in place of the experiment's");
  verb->add_option("--out", o->out, "Folder for steps.csv, experts.csv, trace.npz, trace.pb, figure.svg, ... and checkpoints")->check(names_a_folder);
  verb->add_flag("--resume", o->resume, "Go on from the checkpoints in --out, where there are any");
  verb->footer("Example: epsim train examples/train/collapse.yaml --out collapse\nUnder mpirun each process computes a block of the experts; the bits are the same.");
  verb->callback([o, &catalogs, &result] {
    result = kOk;
    if (World::launcher_present()) {
      result = run_distributed(*o, catalogs);
    } else {
      run_alone(*o, catalogs);
    }
  });
}

}  // namespace epsim
