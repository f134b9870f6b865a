#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"

namespace epsim {

/// A JSON value that knows where it stands. A list of numbers alone keeps them as numbers: recordings hold millions.
struct Json {
  enum class Kind { null, boolean, number, text, list, map } kind = Kind::null;
  double number = 0;                                  ///< also of a boolean, 0 or 1
  std::string text;
  std::vector<double> numbers;                        ///< of a list that holds only numbers
  std::vector<Json> items;                            ///< of any other list
  std::vector<std::pair<std::string, Json>> entries;  ///< of a map, in the order of the file
  std::size_t offset = 0;                             ///< of its first byte, or one behind it

  bool is_list() const { return kind == Kind::list; }
  bool is_map() const { return kind == Kind::map; }
  std::size_t size() const { return items.empty() ? numbers.size() : items.size(); }
  /// The value under a key, the last of equals; null where there is none.
  const Json* find(std::string_view key) const;
};

/// Parses a text, or the part [begin, end) of it. Throws InputError with line and column; also for more than 64 levels.
Json parse_json(const std::shared_ptr<const SourceText>& file, std::size_t begin = 0, std::size_t end = std::string::npos);

/// Calls `each` for every line of a text that is not blank, parsed.
void for_each_json_line(const std::shared_ptr<const SourceText>& file, const std::function<void(const Json&)>& each);

/// Asks values for what they must be and says where one is not. `what` names the value in messages.
class JsonReader {
 public:
  explicit JsonReader(std::shared_ptr<const SourceText> file) : file_(std::move(file)) {}

  [[noreturn]] void fail(const Json& at, const std::string& message) const;
  const Json& member(const Json& map, std::string_view key) const;
  const Json& list(const Json& value, std::string_view what) const;
  std::int64_t whole(const Json& value, std::string_view what, std::int64_t min, std::int64_t max) const;
  std::int64_t whole_member(const Json& map, std::string_view key, std::int64_t min, std::int64_t max) const { return whole(member(map, key), key, min, max); }
  /// A list of whole numbers from `min` to `max`; a wrong one is named by its place.
  std::vector<std::int64_t> wholes(const Json& value, std::string_view what, std::int64_t min, std::int64_t max) const;
  const std::shared_ptr<const SourceText>& file() const { return file_; }

 private:
  std::shared_ptr<const SourceText> file_;
};

}  // namespace epsim
