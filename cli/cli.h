#pragma once
#include <iosfwd>
#include <string>
#include <vector>

#include "sim/experiment.h"

namespace CLI {
class App;
}

namespace epsim {

/// Exit codes of the program.
enum ExitCode : int { kOk = 0, kFailed = 1, kBadInput = 2, kCheckFailed = 3 };

/// The whole program: parses the command line, runs a verb, prints results on stdout and everything else on stderr. Gives the exit code.
int cli(int argc, char** argv, const Catalogs& catalogs);

/// Prints what an experiment's reader guessed or wants known, on stderr.
void print_notes(const Experiment& experiment);
/// Prints every problem of an InputError on stderr.
void print_problems(const InputError& error);

/// A verb adds its subcommand to `app`; `result` is the exit code it sets when it has run. One file each.
namespace verb {
void run(CLI::App& app, const Catalogs& catalogs, int& result);
void execute(CLI::App& app, const Catalogs& catalogs, int& result);
void import(CLI::App& app, const Catalogs& catalogs, int& result);
void place(CLI::App& app, const Catalogs& catalogs, int& result);
void layer(CLI::App& app, const Catalogs& catalogs, int& result);
void train(CLI::App& app, const Catalogs& catalogs, int& result);
void compress(CLI::App& app, const Catalogs& catalogs, int& result);
void alltoall(CLI::App& app, const Catalogs& catalogs, int& result);
void compare(CLI::App& app, const Catalogs& catalogs, int& result);
void advise(CLI::App& app, const Catalogs& catalogs, int& result);
void topo(CLI::App& app, const Catalogs& catalogs, int& result);
void route(CLI::App& app, const Catalogs& catalogs, int& result);
void list(CLI::App& app, const Catalogs& catalogs, int& result);
void model(CLI::App& app, const Catalogs& catalogs, int& result);
}  // namespace verb

}  // namespace epsim
