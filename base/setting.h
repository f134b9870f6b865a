#pragma once
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"

namespace epsim {

/// A value of an experiment file: a scalar, a list or a map, each knowing where it was written. Scalars keep their text; reading gives them a type.
struct Setting {
  enum class Kind { null, scalar, list, map };
  struct Entry;

  Kind kind = Kind::null;
  std::string text;             ///< of a scalar, unquoted
  std::vector<Setting> items;   ///< of a list
  std::vector<Entry> entries;   ///< of a map, in the order of the file; keys are unique
  Location at;

  bool is_scalar() const { return kind == Kind::scalar; }
  bool is_map() const { return kind == Kind::map; }
  const Setting* find(std::string_view key) const;
  Setting& get_or_add(std::string_view key, Location at);
};

struct Setting::Entry {
  std::string key;
  Location at;  ///< of the key
  Setting value;
};

/// Reads YAML. Throws InputError with line and column on a syntax error, a duplicate key, a key that is no scalar, nesting over 32 levels or over 100,000 values.
Setting parse_yaml(std::shared_ptr<const SourceText> source);

/// Names of the keys whose value names a part, each with the part that is meant where the file has none.
using PartKeys = std::map<std::string, std::string, std::less<>>;

/// Lays `over` on `base`: scalars and lists replace, maps merge key by key. Under a part key, another part name replaces the whole part and the same name merges.
void overlay(Setting& base, const Setting& over, const PartKeys& parts);

/// Applies one "a.b=value" override. Under a part key, `placement=eplb` replaces the part and `placement.slots=288` sets a setting of the chosen part.
/// Throws InputError at an earlier override of which nothing would be left, such as one of `placement.slots` before one of `placement`.
void apply_override(Setting& root, std::string_view assignment, const PartKeys& parts);

/// The part a setting names and its own settings: "eplb" or "eplb: {slots: 288}". Reports anything else to `problems`.
struct PartChoice {
  std::string name;
  Location at;
  Setting settings;  ///< a map, empty for a bare name
};
PartChoice part_choice(const Setting& value, Diagnostics& problems);

/// Canonical one-line YAML of a value, for resolved configurations.
std::string to_yaml(const Setting& value);

}  // namespace epsim
