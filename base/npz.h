#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/check.h"

namespace epsim {

/// An array as NumPy stores it: C order, little-endian. Integers of any width are widened to int64, floats (f2, f4, f8) to double.
struct NpyArray {
  std::vector<std::int64_t> shape;
  bool is_float = false;
  std::vector<std::int64_t> integers;  ///< filled when !is_float
  std::vector<double> floats;          ///< filled when is_float

  std::int64_t size() const;
};

/// Reads all arrays of a `.npz` (stored or deflated zip members; NumPy formats 1 to 3; b1 i1-i8 u1-u8 f2 f4 f8; C or Fortran order).
/// Throws InputError naming the file and member when anything is truncated, inconsistent, unsupported or over 4 GiB.
std::map<std::string, NpyArray> read_npz(std::shared_ptr<const SourceText> file);
/// Reads the single array of a `.npy`, under the same conditions.
NpyArray read_npy(std::shared_ptr<const SourceText> file);

/// Collects arrays and writes them as a stored `.npz` with fixed dates: same arrays, same bytes.
class NpzWriter {
 public:
  static constexpr double kMostBytes = 0xffffffff;  ///< that a file stays below
  void add(const std::string& name, std::vector<std::int64_t> shape, std::span<const float> values);
  void add(const std::string& name, std::vector<std::int64_t> shape, std::span<const double> values);
  void add(const std::string& name, std::vector<std::int64_t> shape, std::span<const std::int64_t> values);
  void add(const std::string& name, std::vector<std::int64_t> shape, std::span<const std::int32_t> values);
  /// The file's bytes.
  std::string bytes() const;

 private:
  void add_raw(const std::string& name, const std::vector<std::int64_t>& shape, const char* type, const void* data, std::size_t bytes);
  std::vector<std::pair<std::string, std::string>> members_;
};

}  // namespace epsim
