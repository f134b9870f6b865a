#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "analysis/plot/lines.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "policies/compression_file.h"
#include "sim/train/checkpoint.h"
#include "sim/train/compress.h"

namespace epsim {
namespace {

struct Options {
  std::string folder, out;
  std::vector<std::string> text, methods;
  std::vector<int> keep;
  int batches = 8;
};

/// A way to make experts fewer, as it was asked for.
struct Wish {
  std::string method;  ///< its name, and what was set on it
  Setting part;
  bool keeps = false;  ///< it is told how many experts to keep
};

/// What came of it.
struct Result {
  std::string method;
  bool keeps = false;
  int experts = 0;
  std::int64_t parameters = 0;
  CompressionMeasure measure;
  CompressionFile maps;
  std::string trace;

  std::string folder() const {
    std::string name = keeps ? fmt::format("{}-{}", method, experts) : method;
    std::ranges::replace_if(name, [](unsigned char c) { return !std::isalnum(c) && c != '_' && c != '-' && c != '.'; }, '-');
    return name;
  }
};

Location option(const char* name, const std::string& value) { return {std::make_shared<const SourceText>(SourceText{name, value}), 1, 1}; }

/// A part as a map of its name to a map of its settings.
Setting as_map(const PartChoice& choice) {
  Setting part;
  part.kind = Setting::Kind::map, part.at = choice.at;
  Setting& settings = part.get_or_add(choice.name, choice.at);
  settings = choice.settings;
  settings.kind = Setting::Kind::map;
  return part;
}

Setting with_keep(Setting part, int keep) {
  Setting& value = part.entries.front().value.get_or_add("keep", part.at);
  value.kind = Setting::Kind::scalar, value.text = std::to_string(keep);
  return part;
}

bool has_keep(const CompressionCatalog::Entry& entry) {
  Params listing;
  entry.make(listing, nullptr);
  return std::ranges::any_of(listing.docs(), [](const ParamDoc& d) { return d.key == "keep"; });
}

/// The methods that were asked for; without any, all that need no file.
std::vector<Wish> read_wishes(const Options& o, const CompressionCatalog& catalog, Diagnostics& problems) {
  std::vector<std::string> texts = o.methods;
  if (texts.empty())
    for (const std::string& name : catalog.names())
      if (name != "none" && name != "given") texts.push_back(name);
  std::vector<Wish> wishes;
  for (const std::string& text : texts) try {
      const PartChoice choice = part_choice(parse_yaml(std::make_shared<const SourceText>(SourceText{"--method", text})), problems);
      const auto* entry = catalog.find(choice.name);
      if (!entry) {
        if (!choice.name.empty()) problems.add(choice.at, fmt::format("there is no compression `{}`{}", choice.name, suggest(choice.name, catalog.names())));
        continue;
      }
      Wish wish{choice.name, as_map(choice), has_keep(*entry)};
      for (const Setting::Entry& e : choice.settings.entries) wish.method += fmt::format(" {}={}", e.key, e.value.text);
      if (const Setting* keep = choice.settings.find("keep")) problems.add(keep->at, "how many experts are kept is said by --keep");
      wishes.push_back(std::move(wish));
    } catch (const InputError& e) {
      problems.add(e);
    }
  return wishes;
}

/// Three quarters, half and a quarter of the experts, as far as a token can still choose.
std::vector<int> default_keep(int experts, int top_k) {
  std::vector<int> keep;
  for (const int quarters : {3, 2, 1})
    if (const int n = experts * quarters / 4; n >= top_k) keep.push_back(n);
  return keep;
}

/// The training of the folder. Which of its experts are computed where is not the folder's to say.
struct Trained {
  std::shared_ptr<const SourceText> file;
  Training training;
  TrainState state;
};

Trained read_trained(const Options& o, const Catalogs& catalogs) {
  const std::filesystem::path folder(o.folder);
  const auto file = read_text((folder / "experiment.yaml").string());
  TrainingFile read = read_training(file, {}, o.text, catalogs);
  if (read.runs.size() != 1) throw InputError({file, 1, 1}, "expected the folder of one run, as `epsim train` writes it");
  Trained out{file, std::move(read.runs.front()), {}};
  out.state = read_checkpoint(out.training, read_text((folder / "checkpoint.npz").string()));
  if (out.training.model.shape.moe.experts < 2) throw InputError({file, 1, 1}, "a model of one expert cannot be made smaller");
  if (out.training.model.moe.capacity.limits) throw InputError({file, 1, 1}, "a model is made smaller without a capacity: that of a merged expert would be another one; train with `capacity: dropless`");
  return out;
}

/// The training with a gate of fewer experts, checked like any.
Training with_columns(const Trained& whole, int columns, const Options& o, const Catalogs& catalogs) {
  if (columns == whole.training.model.shape.moe.experts) return whole.training;
  return read_training(whole.file, {fmt::format("model.experts={}", columns)}, o.text, catalogs).runs.front();
}

Result compress(const Trained& whole, const Compression& method, const std::string& name, bool keeps, const std::vector<ExpertsSeen>& seen, const Options& o, const Catalogs& catalogs) {
  Result result{name, keeps, method.experts, 0, {}, {}, {}};
  for (const ExpertsSeen& of_layer : seen) result.maps.layers.push_back(of_layer.layer), result.maps.maps.push_back(method.decide(of_layer));
  const CompressedTraining made = compressed(with_columns(whole, whole.training.model.shape.moe.experts - method.pruned, o, catalogs), whole.state, result.maps.maps, seen, method.align);
  result.parameters = made.parameters;
  result.measure = measure(whole.training, whole.state, made);
  if (!o.out.empty()) result.trace = compressed_trace(made);
  return result;
}

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v / static_cast<double>(values.size());
  return sum;
}

std::string to_csv(const std::vector<Result>& results) {
  std::string out = "method,experts,parameters,held_out_loss,error";
  for (const int layer : results.front().maps.layers) out += fmt::format(",error{}", layer);
  out += ",imbalance,choices\n";
  for (const Result& r : results) {
    out += fmt::format("{},{},{},{:.6g},{:.6g}", r.method, r.experts, r.parameters, r.measure.held_out_loss, mean(r.measure.error));
    for (const double error : r.measure.error) out += fmt::format(",{:.6g}", error);
    out += fmt::format(",{:.6g},{:.6g}\n", r.measure.imbalance, r.measure.choices);
  }
  return out;
}

/// Loss and error over the experts that are left; every curve ends at the whole model, the first result. A method that keeps as many as it finds is a point.
std::string figure(const std::vector<Result>& results, const std::string& name) {
  LinesFigure f;
  f.title = fmt::format("{}: experts merged and pruned", name);
  f.subtitle = "held-out text; error: length of the change of an MoE layer's output, mean over layers";
  f.x_title = "experts of a layer that are left";
  f.panels = {{"held-out loss (nats a byte)", {}, false}, {"error of a layer's output (share of its length)", {}, true}};
  std::map<std::string, std::vector<const Result*>> curves;
  for (const Result& r : results) {
    f.x_ticks.push_back(r.experts);
    if (&r == &results.front()) continue;
    if (!curves.contains(r.method)) f.series.push_back(r.method), curves[r.method] = r.keeps ? std::vector{&results.front()} : std::vector<const Result*>();
    curves[r.method].push_back(&r);
  }
  std::ranges::sort(f.x_ticks);
  f.x_ticks.erase(std::unique(f.x_ticks.begin(), f.x_ticks.end()), f.x_ticks.end());
  for (std::size_t s = 0; s < f.series.size(); ++s) {
    std::vector<const Result*>& points = curves[f.series[s]];
    std::ranges::stable_sort(points, {}, &Result::experts);
    LinesFigure::Line loss, error;
    loss.series = error.series = static_cast<int>(s);
    for (const Result* r : points) {
      loss.x.push_back(r->experts), error.x.push_back(r->experts);
      loss.y.push_back(r->measure.held_out_loss), error.y.push_back(mean(r->measure.error));
    }
    f.panels[0].lines.push_back(std::move(loss)), f.panels[1].lines.push_back(std::move(error));
  }
  return to_svg(f);
}

void print_table(const std::vector<Result>& results) {
  std::size_t width = 6;
  for (const Result& r : results) width = std::max(width, r.method.size());
  fmt::print("{:<{}}  {:>7}  {:>10}  {:>8}  {:>8}  {:>9}  {:>7}  {}\n", "method", width, "experts", "parameters", "held out", "change", "imbalance", "choices", "error by layer");
  for (const Result& r : results) {
    fmt::print("{:<{}}  {:>7}  {:>10}  {:>8.4f}  {:>+8.4f}  {:>9.2f}  {:>7.3f} ", r.method, width, r.experts, r.parameters, r.measure.held_out_loss, r.measure.held_out_loss - results.front().measure.held_out_loss,
               r.measure.imbalance, r.measure.choices);
    for (const double error : r.measure.error) fmt::print(" {:.4f}", error);
    fmt::print("\n");
  }
}

void write_all(const Options& o, const std::vector<Result>& results, const std::string& name) {
  for (const Result& r : results) {
    OutputFolder out((std::filesystem::path(o.out) / r.folder()).string(), "--out");
    out.write("compression.json", to_json(r.maps));
    if (!r.trace.empty()) out.write("trace.npz", r.trace);
    out.commit();
  }
  OutputFolder out(o.out, "--out");
  out.write("compress.csv", to_csv(results));
  out.write("figure.svg", figure(results, name));
  out.commit();
}

void run(const Options& o, const Catalogs& catalogs) {
  const Trained whole = read_trained(o, catalogs);
  const LayerShape& s = whole.training.model.shape.moe;
  Diagnostics problems;
  const std::vector<Wish> wishes = read_wishes(o, catalogs.compression, problems);
  std::vector<int> keep = o.keep.empty() ? default_keep(s.experts, whole.training.top_k) : o.keep;
  Shape shape;
  shape.experts = s.experts, shape.top_k = whole.training.top_k, shape.ranks = shape.nodes = 1;
  std::vector<std::pair<const Wish*, Compression>> methods;
  for (const Wish& wish : wishes)
    for (const int n : wish.keeps ? keep : std::vector<int>{s.experts}) {
      Diagnostics of_method;
      Compression method = catalogs.compression.make(wish.keeps ? with_keep(wish.part, n) : wish.part, of_method, &shape);
      try {
        of_method.check();
        methods.emplace_back(&wish, std::move(method));
      } catch (const InputError& e) {
        if (wish.keeps || !o.methods.empty()) problems.add(e);  // of all methods, those that are for such a model
      }
    }
  if (!o.keep.empty() && std::ranges::none_of(wishes, &Wish::keeps)) problems.add(option("--keep", std::to_string(o.keep.front())), "no method is told how many experts to keep");
  problems.check();
  if (!o.out.empty()) OutputFolder(o.out, "--out").commit();  // checked before anything is computed

  const std::vector<ExpertsSeen> seen = see_experts(whole.training, whole.state, training_batches(whole.training, o.batches));
  Compression none;
  none.experts = s.experts, none.decide = [](const ExpertsSeen& of_layer) { return unchanged(of_layer.experts); };
  std::vector<Result> results = {compress(whole, none, "none", false, seen, o, catalogs)};
  for (const auto& [wish, method] : methods)
    if (method.decide) results.push_back(compress(whole, method, wish->method, wish->keeps, seen, o, catalogs));
  if (!o.out.empty()) write_all(o, results, std::filesystem::path(o.folder).lexically_normal().filename().string());
  print_table(results);
}

}  // namespace

/// `epsim compress`: merges and prunes the experts of a trained model, and measures what that costs.
void verb::compress(CLI::App& app, const Catalogs& catalogs, int& result) {
  const auto o = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("compress", "Merge and prune the experts of a trained model, and measure what that costs");
  verb->add_option("folder", o->folder, "Folder of a run that `epsim train` wrote, with experiment.yaml and checkpoint.npz")->required();
  verb->add_option("--text", o->text, "Text files that it was trained on, in place of the experiment's");
  verb->add_option("--method", o->methods, "A compression as an experiment names it, such as reap or '{frequency_merge: {align: false}}' (repeatable); all that suit the model unless given")->allow_extra_args(false);
  verb->add_option("--keep", o->keep, "Experts of a layer to keep, such as 12,8,4; three quarters, half and a quarter unless given")->delimiter(',')->allow_extra_args(false);
  verb->add_option("--batches", o->batches, "Batches of the training text from which methods decide")->check(CLI::Range(1, 100'000))->capture_default_str();
  verb->add_option("--out", o->out, "Folder for compress.csv, figure.svg and, for each compression, compression.json and trace.npz")->check(names_a_folder);
  verb->footer("Example: epsim compress trace --text examples/train/corpus.txt --method reap --keep 12,8,4 --out compressed");
  verb->callback([o, &catalogs, &result] {
    run(*o, catalogs);
    result = kOk;
  });
}

}  // namespace epsim
