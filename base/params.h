#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/setting.h"
#include "base/units.h"

namespace epsim {

/// What a setting is, written down by the very call that reads it.
struct ParamDoc {
  std::string key, type, fallback, help;  ///< fallback is empty for a required key
};

/// The settings of one part. Each read names the key, its type, its default and what it means; a read without a default is required.
/// A wrong value is reported with its place and a stand-in is returned, so that one pass finds every problem; `finish` reports keys that nobody read.
/// In listing mode (no settings) reads only record their documentation. `fallback_text` says in words what a default is that follows from other settings.
class Params {
 public:
  /// Reads `settings` (a map). `context` names the part in messages, such as "placement `eplb`".
  Params(const Setting& settings, std::string context, Diagnostics& problems);
  /// Listing mode.
  Params() = default;

  std::int64_t integer(std::string_view key, std::string_view help, std::optional<std::int64_t> fallback = {}, std::int64_t min = 0,
                       std::int64_t max = std::int64_t{1} << 40, std::string_view fallback_text = {});
  double number(std::string_view key, std::string_view help, std::optional<double> fallback = {}, double min = 0, double max = 1e300, std::string_view fallback_text = {});
  bool flag(std::string_view key, std::string_view help, std::optional<bool> fallback = {});
  std::string text(std::string_view key, std::string_view help, std::optional<std::string> fallback = {});
  /// One of `names`.
  std::string choice(std::string_view key, std::string_view help, const std::vector<std::string>& names, std::optional<std::string> fallback = {});
  /// A path; a relative one is taken from the folder of the file that gives it (from the working folder when given on the command line).
  std::string path(std::string_view key, std::string_view help, std::optional<std::string> fallback = {});
  Time time(std::string_view key, std::string_view help, std::optional<Time> fallback = {}, std::string_view fallback_text = {});
  Bytes bytes(std::string_view key, std::string_view help, std::optional<Bytes> fallback = {});
  Bandwidth bandwidth(std::string_view key, std::string_view help, std::optional<Bandwidth> fallback = {}, std::string_view fallback_text = {});  ///< above 0
  Rational rational(std::string_view key, std::string_view help, std::optional<Rational> fallback = {});      ///< above 0
  /// Numbers and ranges such as "3-60", "1, 4, 7" or [1, 4-6]; nothing when the key is absent.
  std::optional<std::vector<int>> ranges(std::string_view key, std::string_view help);

  /// A value of a form of its own: where it is given, `read(value, problems)` reads it and reports what is wrong with it.
  void custom(std::string_view key, std::string_view type, std::string_view fallback, std::string_view help, const std::function<void(const Setting&, Diagnostics&)>& read_value);

  /// The settings under a key that holds a map of its own; empty ones where it is absent. Call `finish` on it too.
  Params section(std::string_view key, std::string_view help);
  /// Makes a key known that somebody else reads.
  void know(std::string_view key) { docs_.push_back({std::string(key), "", "", ""}); }

  bool has(std::string_view key) const { return settings_ && settings_->find(key); }
  /// Reports a problem with the value of `key` (or with the part as a whole, where the key is absent).
  void error(std::string_view key, std::string message);
  Location at(std::string_view key) const;
  Location at() const;

  bool listing() const { return settings_ == nullptr; }
  /// True when real settings were read and none was wrong: only then are the values worth building from.
  bool usable() const { return !listing() && problems_->size() == problems_before_; }
  /// Reports every key that no call asked for. `instead(key)`, if given, names what else might have been meant where no key is near.
  void finish(const std::function<std::string(std::string_view)>& instead = {});
  const std::vector<ParamDoc>& docs() const { return docs_; }

 private:
  const Setting* read(std::string_view key, std::string_view type, std::string fallback, bool required, std::string_view help);
  template <class T, class Parse>
  T quantity(std::string_view key, std::string_view type, std::string_view help, std::optional<T> fallback, std::string fallback_text, Parse parse,
             T stand_in);

  const Setting* settings_ = nullptr;
  std::shared_ptr<const Setting> owned_;  // of an absent section
  std::string context_;
  Diagnostics* problems_ = nullptr;
  std::size_t problems_before_ = 0;
  std::vector<ParamDoc> docs_;
};

/// Checks that `file` names a readable file relative to where it was written. Used by `path`.
std::string resolve_path(const std::string& file, const Location& written_at);

}  // namespace epsim
