#pragma once
#include <cstdio>
#include <stdexcept>
#include <string>

#include <sys/wait.h>

namespace epsim {

/// What a shell command printed on stdout, and its exit code. stderr is dropped unless the command redirects it.
struct ProgramResult {
  std::string out;
  int code = 0;
};

inline ProgramResult run_shell(const std::string& command) {
  FILE* pipe = popen((command + (command.find("2>") == std::string::npos ? " 2>/dev/null" : "")).c_str(), "r");
  if (!pipe) throw std::runtime_error("cannot start a shell");
  ProgramResult result;
  char chunk[1 << 14];
  for (std::size_t n; (n = std::fread(chunk, 1, sizeof chunk, pipe)) > 0;) result.out.append(chunk, n);
  const int status = pclose(pipe);
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace epsim
