#include "cli/cli.h"
#include "cli/spec.h"

#include <dnnl_version.h>
#include <google/protobuf/stubs/common.h>

#include <iostream>
#include <new>

#include <CLI/CLI.hpp>
#include <boost/version.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/parallel.h"
#include "sim/mpi/world.h"

namespace epsim {
namespace {

void print_version(bool verbose) {
  fmt::print("epsim {}\n", EPSIM_VERSION);
  if (!verbose) return;
  fmt::print("compiler      {}\n", __VERSION__);
  fmt::print("MPI           {}\n", World::library());
  fmt::print("oneDNN        {}.{}.{}\n", DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR, DNNL_VERSION_PATCH);
  fmt::print("Boost         {}\n", BOOST_LIB_VERSION);
  fmt::print("Protobuf      {}\n", google::protobuf::internal::VersionString(GOOGLE_PROTOBUF_VERSION));
  fmt::print("fmt           {}\n", FMT_VERSION);
  fmt::print("nlohmann-json {}.{}.{}\n", NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR, NLOHMANN_JSON_VERSION_PATCH);
  fmt::print("CLI11         {}\n", CLI11_VERSION);
  fmt::print("threads       {}\n", thread_count());
}

/// The words that no verb took, in the order they were typed.
std::string words_left(const CLI::App& app, int argc, char** argv) {
  std::vector<std::string> left = app.remaining(true), words;
  for (int i = 1; i < argc; ++i)
    if (const auto word = std::ranges::find(left, argv[i]); word != left.end()) words.emplace_back(argv[i]), left.erase(word);
  return fmt::format("{}", fmt::join(words, " "));
}

/// A command-line error in our own words: what was not understood and the nearest thing that is.
int usage_error(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  const CLI::App* used = &app;
  std::string verb;
  int depth = 0;
  for (; !used->get_subcommands().empty(); ++depth) used = used->get_subcommands().front(), verb += " " + used->get_name();
  std::vector<std::string> known;
  std::string unknown;
  for (const CLI::App* sub : used->get_subcommands([](const CLI::App*) { return true; })) known.push_back(sub->get_name());
  const bool no_verb = !known.empty() && argc > depth + 1 && argv[depth + 1][0] != '-';
  if (no_verb) unknown = argv[depth + 1];
  for (const CLI::Option* option : used->get_options())
    for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
  for (int i = 1; i < argc && unknown.empty(); ++i) {
    const std::string word = std::string(argv[i]).substr(0, std::string(argv[i]).find('='));
    if (word.starts_with("--") && std::find(known.begin(), known.end(), word) == known.end()) unknown = word;
  }
  const std::string hint = unknown.empty() || std::find(known.begin(), known.end(), unknown) != known.end() ? "" : fmt::format("`{}` is not known{}", unknown, suggest(unknown, known));
  const std::string what = dynamic_cast<const CLI::ExtrasError*>(&error) ? "not expected: " + words_left(app, argc, argv) : error.what();
  const bool hint_alone = no_verb && !hint.empty();  // what follows an unknown verb was for that verb
  fmt::print(stderr, "epsim{}: error: {}{}{}\nSee `epsim{} --help`.\n", verb, hint_alone ? "" : what, hint.empty() || hint_alone ? "" : "\n", hint, verb);
  return kBadInput;
}

}  // namespace

void print_notes(const Experiment& experiment) {
  for (const std::string& note : experiment.notes) fmt::print(stderr, "note: {}\n", note);
}

void print_problems(const InputError& error) {
  for (Diagnostic d : error.problems()) {
    d.at = as_typed(d.at);
    fmt::print(stderr, "{}\n", render(d));
  }
  if (error.problems().size() > 1) fmt::print(stderr, "{} problems; nothing was run\n", error.problems().size());
}

int cli(int argc, char** argv, const Catalogs& catalogs) {
  CLI::App app("Simulates expert-parallel Mixture-of-Experts layers on a cluster, and runs the same plan for real on MPI ranks.", "epsim");
  app.footer("Try: epsim run examples/deepseek-v3.yaml");
  bool version = false, verbose = false;
  app.add_flag("--version", version, "Print the version; with --verbose also the libraries'");
  app.add_flag("-v,--verbose", verbose, "With --version: more");
  int result = kOk;
  verb::run(app, catalogs, result);
  verb::execute(app, catalogs, result);
  verb::compare(app, catalogs, result);
  verb::advise(app, catalogs, result);
  verb::place(app, catalogs, result);
  verb::layer(app, catalogs, result);
  verb::train(app, catalogs, result);
  verb::compress(app, catalogs, result);
  verb::import(app, catalogs, result);
  verb::alltoall(app, catalogs, result);
  verb::topo(app, catalogs, result);
  verb::route(app, catalogs, result);
  verb::list(app, catalogs, result);
  verb::model(app, catalogs, result);
  app.require_subcommand(0, 1);
  try {
    app.parse(argc, argv);
    if (version) {
      print_version(verbose);
    } else if (app.get_subcommands().empty()) {
      fmt::print(stderr, "{}", app.help());
      return kBadInput;
    }
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help
    return usage_error(app, error, argc, argv);
  } catch (const InputError& error) {
    print_problems(error);
    return kBadInput;
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "epsim: failed: out of memory: take fewer tokens, ranks or layers at a time\n");
    return kFailed;
  } catch (const std::exception& error) {
    fmt::print(stderr, "epsim: failed: {}\n", error.what());
    return kFailed;
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) {
    fmt::print(stderr, "epsim: failed: the output could not be written\n");
    return kFailed;
  }
  return result;
}

}  // namespace epsim
