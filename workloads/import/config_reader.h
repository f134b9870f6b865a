#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/check.h"

namespace epsim {

/// Reads values of a JSON configuration by key, with aliases, and collects what is wrong at the place of the key. A key that is absent or null gives the
/// fallback. Wrong values give the fallback too (or a stand-in of 1), so that one pass finds every problem.
class ConfigReader {
 public:
  using Keys = std::vector<std::string>;  ///< names of one fact; where several are given they must agree

  /// Throws InputError where the text is not a JSON object. A `text_config` object takes the place of the whole (multimodal models).
  explicit ConfigReader(std::shared_ptr<const SourceText> file);
  ~ConfigReader();
  ConfigReader(const ConfigReader&) = delete;
  ConfigReader& operator=(const ConfigReader&) = delete;

  /// A size that must be there, at least 1.
  std::int64_t size(const Keys& keys, const std::string& what);
  std::int64_t integer(const Keys& keys, std::int64_t fallback, std::int64_t min = 0);
  double number(const std::string& key, double fallback);
  bool flag(const Keys& keys, bool fallback);
  std::string text(const Keys& keys, const std::string& fallback);
  std::vector<std::int64_t> integers(const std::string& key);
  /// A text inside an object: "quantization_config", "quant_method". Falls back to the outermost object where `text_config` has none.
  std::string nested_text(const std::string& key, const std::string& inner);

  bool has(const Keys& keys) const { return find(keys).has_value(); }
  /// Reports at the first of the keys that is there (at the object where none is).
  void error(const Keys& keys, std::string message);
  /// The keys that gave a value, in the order of reading.
  const Keys& used() const { return used_; }
  Diagnostics& problems() { return problems_; }

 private:
  struct Json;
  std::optional<std::string> find(const Keys& keys) const;
  Location at(const std::string& key) const;
  Location at() const;

  std::shared_ptr<const SourceText> file_;
  std::unique_ptr<Json> json_;
  std::vector<std::string> path_;  // of the object that is read
  Keys used_;
  Diagnostics problems_;
};

}  // namespace epsim
