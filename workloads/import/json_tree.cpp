#include "workloads/import/json_tree.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "workloads/import/text_walker.h"

namespace epsim {
namespace {

constexpr std::size_t kMostLevels = 64;

class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  Builder(const std::shared_ptr<const SourceText>& file, std::size_t begin, std::size_t end) : file_(file), begin_(begin), end_(end) {}

  Json build() {
    const char* const text = file_->text.data();
    furthest_ = text + begin_;
    nlohmann::json::sax_parse(TextWalker(text + begin_, &furthest_), TextWalker(text + end_, &furthest_), this);
    return std::move(root_);
  }

  bool null() override { return put({}), true; }
  bool boolean(bool v) override { return put(simple(Json::Kind::boolean, v ? 1 : 0)), true; }
  bool number_integer(number_integer_t v) override { return number(static_cast<double>(v)); }
  bool number_unsigned(number_unsigned_t v) override { return number(static_cast<double>(v)); }
  bool number_float(number_float_t v, const string_t&) override { return number(v); }
  bool binary(binary_t&) override { return false; }
  bool string(string_t& v) override {
    Json value = simple(Json::Kind::text, 0);
    value.text = std::move(v);
    put(std::move(value));
    return true;
  }
  bool start_object(std::size_t) override { return open(Json::Kind::map); }
  bool start_array(std::size_t) override { return open(Json::Kind::list); }
  bool end_object() override { return open_.pop_back(), true; }
  bool end_array() override { return open_.pop_back(), true; }
  bool key(string_t& name) override {
    open_.back()->entries.emplace_back(std::move(name), Json{});
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    std::string what = e.what();  // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while ..."
    for (const std::string_view before : {"] ", "parse error at line "})
      if (const auto at = what.find(before); at != std::string::npos && at < 64) what = what.substr(before == "] " ? at + 2 : what.find(": ", at) + 2);
    throw InputError(locate(file_, begin_ + (position > 0 ? position - 1 : 0)), "is no JSON: " + what);
  }

 private:
  /// One byte before where the parser has come to: the bracket of a list, the last byte of a word.
  std::size_t here() const { return static_cast<std::size_t>(furthest_ - file_->text.data()) - (furthest_ > file_->text.data() + begin_ ? 1 : 0); }
  Json simple(Json::Kind kind, double number) const {
    Json value;
    value.kind = kind, value.number = number, value.offset = here();
    if (kind == Json::Kind::number) {  // the parser has read one byte past it, except at the end of the text
      const auto part = [](char c) { return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E'; };
      const char* text = file_->text.data();
      std::size_t& at = value.offset;
      if (at > begin_ && !part(text[at])) --at;
      while (at > begin_ && part(text[at - 1])) --at;
    }
    return value;
  }
  bool number(double v) {
    if (!open_.empty() && open_.back()->is_list() && open_.back()->items.empty())
      open_.back()->numbers.push_back(v);
    else
      put(simple(Json::Kind::number, v));
    return true;
  }
  Json& put(Json value) {
    if (open_.empty()) return root_ = std::move(value);
    Json& in = *open_.back();
    if (in.is_map()) return in.entries.back().second = std::move(value);
    for (const double n : in.numbers) {
      Json& item = in.items.emplace_back();
      item.kind = Json::Kind::number, item.number = n, item.offset = in.offset;
    }
    in.numbers.clear();
    return in.items.emplace_back(std::move(value));
  }
  bool open(Json::Kind kind) {
    if (open_.size() == kMostLevels) throw InputError(locate(file_, here()), fmt::format("more than {} levels of lists and objects", kMostLevels));
    open_.push_back(&put(simple(kind, 0)));
    return true;
  }

  const std::shared_ptr<const SourceText>& file_;
  std::size_t begin_, end_;
  const char* furthest_ = nullptr;
  Json root_;
  std::vector<Json*> open_;  // outermost first; only the innermost grows, so the others stay where they are
};

std::string_view name_of(Json::Kind kind) {
  constexpr std::string_view kNames[] = {"null", "true or false", "a number", "a text", "a list", "an object"};
  return kNames[static_cast<std::size_t>(kind)];
}

bool is_whole(double v, std::int64_t min, std::int64_t max) { return v >= static_cast<double>(min) && v <= static_cast<double>(max) && v == std::floor(v); }

}  // namespace

const Json* Json::find(std::string_view key) const {
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry)
    if (entry->first == key) return &entry->second;
  return nullptr;
}

Json parse_json(const std::shared_ptr<const SourceText>& file, std::size_t begin, std::size_t end) {
  return Builder(file, begin, std::min(end, file->text.size())).build();
}

void for_each_json_line(const std::shared_ptr<const SourceText>& file, const std::function<void(const Json&)>& each) {
  const std::string& text = file->text;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::size_t first = text.find_first_not_of(" \t\r", begin);
    if (first < end) each(parse_json(file, begin, end));
    begin = end + 1;
  }
}

void JsonReader::fail(const Json& at, const std::string& message) const { throw InputError(locate(file_, at.offset), message); }

const Json& JsonReader::member(const Json& map, std::string_view key) const {
  if (!map.is_map()) fail(map, fmt::format("expected an object with the key `{}`, found {}", key, name_of(map.kind)));
  if (const Json* value = map.find(key)) return *value;
  std::vector<std::string> keys;
  for (const auto& [name, unused] : map.entries) keys.push_back(name);
  fail(map, fmt::format("has no key `{}`{}", key, keys.empty() ? "" : suggest(key, keys)));
}

const Json& JsonReader::list(const Json& value, std::string_view what) const {
  if (!value.is_list()) fail(value, fmt::format("`{}` must be a list, found {}", what, name_of(value.kind)));
  return value;
}

std::int64_t JsonReader::whole(const Json& value, std::string_view what, std::int64_t min, std::int64_t max) const {
  if (value.kind != Json::Kind::number || !is_whole(value.number, min, max))
    fail(value, fmt::format("`{}` must be a whole number from {} to {}, found {}", what, min, max,
                            value.kind == Json::Kind::number ? fmt::format("{}", value.number) : name_of(value.kind)));
  return static_cast<std::int64_t>(value.number);
}

std::vector<std::int64_t> JsonReader::wholes(const Json& value, std::string_view what, std::int64_t min, std::int64_t max) const {
  list(value, what);
  if (!value.items.empty()) {
    for (const Json& item : value.items)
      if (item.kind != Json::Kind::number) fail(item, fmt::format("`{}` must be a list of numbers, found {}", what, name_of(item.kind)));
  }
  std::vector<std::int64_t> out;
  out.reserve(value.numbers.size());
  std::size_t at = value.offset;  // of the bracket; the commas of a list of numbers are its own
  for (std::size_t i = 0; i < value.numbers.size(); ++i) {
    const double v = value.numbers[i];
    if (!is_whole(v, min, max)) {
      for (std::size_t commas = 0; commas < i; ++commas) at = file_->text.find(',', at + 1);
      at = std::min(file_->text.find_first_not_of(" \t\r\n", at + 1), file_->text.size());
      throw InputError(locate(file_, at), fmt::format("`{}`: expected a whole number from {} to {}, found {}", what, min, max, v));
    }
    out.push_back(static_cast<std::int64_t>(v));
  }
  return out;
}

}  // namespace epsim
