#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "cli/cli.h"
#include "cli/output_file.h"
#include "workloads/import/formats.h"
#include "workloads/import/ours.h"
#include "workloads/import/routing_trace.h"
#include "workloads/import/settle.h"

namespace epsim::verb {
namespace {

struct Options {
  std::vector<std::string> files;
  std::string from, model, out;
  std::int64_t skip = 0, exchange = -1;
  int ranks = 0;
  bool drop_bad_tokens = false;
};

Location typed(const std::string& option, const std::string& text) { return {std::make_shared<const SourceText>(SourceText{option, text}), 1, 1}; }

/// What is wrong with a count on the command line; nothing where it is a whole number of at least 0.
std::string is_count(const std::string& text) {
  const auto n = parse_integer(text);
  return n && *n >= 0 ? "" : fmt::format("expected a whole number of at least 0, got `{}`", text);
}

/// What a recording becomes: told by the ending of the file's name, as far as there is a choice.
std::string to_ours(const Recording& recording, const Options& o) {
  const auto ending = [&](const char* expected) {
    if (!o.out.ends_with(expected)) throw InputError(typed("--out", o.out), fmt::format("this recording becomes a {} file: give it a name that ends so", expected));
  };
  if (std::holds_alternative<RecordedChoices>(recording.data)) {
    if (o.out.ends_with(".npz")) return to_trace(recording);
    if (o.out.ends_with(".pb")) return to_protobuf_trace(recording);
    if (!o.out.ends_with(".json")) throw InputError(typed("--out", o.out), "choices of tokens become an .npz or a .pb (for `source: trace`), or a .json of counts: give a name that ends so");
    return to_loads(recording);
  }
  if (std::holds_alternative<RecordedTraffic>(recording.data)) {
    ending(".csv");
    return to_matrix_csv(recording, o.exchange < 0 ? std::nullopt : std::optional(o.exchange));
  }
  ending(".json");
  return std::holds_alternative<RecordedCounts>(recording.data) ? to_loads(recording) : to_placement(recording);
}

void run_import(const Options& o) {
  SourceFiles files;
  Diagnostics problems;
  for (const std::string& name : o.files) try {
      files.push_back(read_text(name));
    } catch (const InputError& e) {
      problems.add(e);
    }
  for (std::size_t i = 0; i < files.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (files[i]->text == files[j]->text) {
        problems.add(Location{files[i]}, fmt::format("holds what {} before it holds: its tokens would count twice", files[j]->name));
        break;
      }
  std::optional<Model> model;
  if (!o.model.empty()) try {
      model = load_model(o.model, typed("--model", o.model));
    } catch (const InputError& e) {
      problems.add(e);
    }
  problems.check();
  const ForeignFormat& format = foreign_format(o.from, *files.front(), o.from.empty() ? Location{files.front()} : typed("--from", o.from));
  Recording recording = format.read(files, {o.ranks});
  const bool choices = std::holds_alternative<RecordedChoices>(recording.data), traffic = std::holds_alternative<RecordedTraffic>(recording.data);
  const auto forbid = [&](bool given, const std::string& option, const std::string& text, const std::string& why) {
    if (given) problems.add(typed(option, text), why);
  };
  forbid(o.exchange >= 0 && !traffic, "--exchange", std::to_string(o.exchange), "only a recording of exchanges has them");
  forbid(o.ranks > 0 && format.name != "tensorrt-llm-balancer", "--ranks", std::to_string(o.ranks), fmt::format("`{}` does not need to be told its ranks", format.name));
  forbid(model && traffic, "--model", o.model, "bytes between ranks say nothing of a model: leave this out");
  forbid(o.drop_bad_tokens && !choices, "--drop-bad-tokens", "", "only a recording of choices has tokens to leave out");
  problems.check();
  const ImportReport report = settle(recording, {files.front()}, {model ? &*model : nullptr, o.skip, o.drop_bad_tokens});
  if (const auto* bytes = std::get_if<RecordedTraffic>(&recording.data); bytes && o.exchange >= static_cast<std::int64_t>(bytes->exchanges.size()))
    throw InputError(typed("--exchange", std::to_string(o.exchange)), fmt::format("there are {} exchanges, counted from 0", bytes->exchanges.size()));
  if (!o.out.empty()) write_file(o.out, "--out", to_ours(recording, o));
  for (const std::string& fact : report.facts) std::cout << fact << "\n";
  for (const std::string& warning : report.warnings) std::cout << "warning: " << warning << "\n";
  if (!o.out.empty()) std::cout << "wrote " << o.out << "\n";
}

}  // namespace

/// `epsim import`: a recording of another program, checked and turned into what epsim reads.
void import(CLI::App& app, const Catalogs&, int& result) {
  const auto o = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("import", "Turn another program's recording into ours, and say what is odd about it");
  std::string formats;
  for (const ForeignFormat& f : foreign_formats()) formats += fmt::format("\n  {:<22} {}", f.name, f.summary);
  verb->add_option("files", o->files, "the recording; several files where it is split over ranks or steps")->required();
  verb->add_option("--from", o->from, "its format; may be left out where the file shows it");
  verb->add_option("--model", o->model, "model that it must fit: a preset (`epsim list model`) or a config.json");
  verb->add_option("--out", o->out, "file to write: .npz or .pb (choices), .json (counts, a placement) or .csv (bytes); without it only the report is printed");
  verb->add_option("--skip", o->skip, "leading steps, tokens or exchanges to leave out")->check(is_count);
  verb->add_flag("--drop-bad-tokens", o->drop_bad_tokens, "leave out tokens with experts out of range or twice, which are errors otherwise");
  verb->add_option("--exchange", o->exchange, "of bytes between ranks, one exchange, counted from 0; without it the sum of all")->check(is_count);
  verb->add_option("--ranks", o->ranks, "ranks of a placement, where its file does not say")->check(CLI::Range(1, 1 << 20));
  verb->footer("Formats:" + formats + "\n\nExample: epsim import dump.json --from sglang --model deepseek-v3 --out loads.json");
  verb->callback([o, &result] {
    run_import(*o);
    result = kOk;
  });
}

}  // namespace epsim::verb
