#include "cli/cli.h"

int main(int argc, char** argv) { return epsim::cli(argc, argv, epsim::builtin_catalogs()); }
