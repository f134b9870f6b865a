#include <cstdint>
#include <string>
#include <vector>

#include "cli/matrix_csv.h"

std::vector<std::string> fuzz_seeds() { return {"0,1\n2,0\n", "0, 1e6, 3\r\n4,0,6\r\n7,8,0\r\n\n", "5", "0,1,2\n1,2\n"}; }

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto source = std::make_shared<const epsim::SourceText>(epsim::SourceText{"fuzz.csv", std::string(reinterpret_cast<const char*>(data), size)});
  try {
    const auto matrix = epsim::read_matrix_csv(source);
    epsim::ensure(matrix.rows > 0 && matrix.rows == matrix.columns, "a matrix that was read is square");
  } catch (const epsim::InputError&) {
  }
  return 0;
}
