// measure REPEATS COMMAND...: runs a command and prints the mean user and system CPU seconds of a run and the most memory one had resident in MiB: "0.0012 0.0003 2.9".
// A program of its own, because a process starts with the memory of its parent on its account: this one has next to none.
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>

extern char** environ;

namespace {

double seconds(const timeval& t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); }

}  // namespace

int main(int count, char** argument) {
  const int repeats = count > 2 ? std::atoi(argument[1]) : 0;
  if (repeats < 1) {
    std::fputs("usage: measure REPEATS COMMAND...\n", stderr);
    return 2;
  }
  double user = 0, system = 0;
  long kib = 0;
  for (int i = 0; i < repeats; ++i) {
    pid_t child = 0;
    int status = 0;
    rusage used{};
    if (posix_spawnp(&child, argument[2], nullptr, nullptr, argument + 2, environ) != 0 || wait4(child, &status, 0, &used) != child) {
      std::fprintf(stderr, "measure: cannot run %s\n", argument[2]);
      return 127;
    }
    if (status != 0) return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    user += seconds(used.ru_utime);
    system += seconds(used.ru_stime);
    if (used.ru_maxrss > kib) kib = used.ru_maxrss;
  }
  std::printf("%.6f %.6f %.1f\n", user / repeats, system / repeats, static_cast<double>(kib) / 1024);
}
