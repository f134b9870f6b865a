#pragma once
#include <cstdlib>
#include <string>

namespace epsim {

/// The folder of data that the project does not ship, from the environment variable EPSIM_TEST_DATA; empty where it is not set. Tests that need it skip, loudly, without it.
inline std::string test_data() {
  const char* folder = std::getenv("EPSIM_TEST_DATA");
  return folder ? folder : "";
}

}  // namespace epsim
