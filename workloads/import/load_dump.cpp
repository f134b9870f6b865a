#include "workloads/import/load_dump.h"

#include <algorithm>
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "workloads/import/text_walker.h"

namespace epsim {
namespace {

constexpr std::int64_t kMaxCount = std::int64_t{1} << 53;  // beyond, a JSON number is not exact everywhere
constexpr std::size_t kMaxExperts = 65'535;

/// Takes the parser's events; keeps `logical_count` and `layers`, looks at the shape of nothing else.
class Reader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Reader(std::shared_ptr<const SourceText> file) : file_(std::move(file)), furthest_(file_->text.data()) {}

  LoadDump read() {
    const char* const begin = file_->text.data();
    nlohmann::json::sax_parse(TextWalker(begin, &furthest_), TextWalker(begin + file_->text.size(), &furthest_), this);
    if (!found_) {
      const Location whole{file_, 0, 0};
      if (weight_at_) throw InputError(*weight_at_, "the loads are expected as `logical_count` [[layer][expert]], `weight` is not read");
      throw InputError(whole, fmt::format("has no key `logical_count` [[layer][expert]]{}", keys_.empty() ? "" : suggest("logical_count", keys_)));
    }
    if (layers_at_ && out_.layers.size() != out_.logical_count.size())
      throw InputError(*layers_at_, fmt::format("`layers` names {} layers, but `logical_count` has {}", out_.layers.size(), out_.logical_count.size()));
    return std::move(out_);
  }

  bool null() override { return other("null"); }
  bool boolean(bool) override { return other("true or false"); }
  bool string(string_t& s) override { return other("a text", s.size() + 2); }
  bool binary(binary_t&) override { return other("binary data"); }
  bool number_integer(number_integer_t v) override { return whole(v, v); }
  bool number_unsigned(number_unsigned_t v) override {
    return whole(v <= static_cast<std::uint64_t>(kMaxCount) ? static_cast<std::int64_t>(v) : -1, static_cast<double>(v));
  }
  bool number_float(number_float_t v, const string_t&) override {
    return whole(v >= 0 && v <= static_cast<double>(kMaxCount) && v == std::floor(v) ? static_cast<std::int64_t>(v) : -1, v);
  }
  bool start_object(std::size_t) override {
    if (depth_ > 0) other("an object");
    ++depth_;
    return true;
  }
  bool end_object() override { return --depth_, true; }
  bool key(string_t& name) override {
    if (depth_ != 1) return true;
    key_ = name;
    keys_.push_back(name);
    const Location at = here(name.size() + 2);
    if (name == "logical_count") {
      if (found_) throw InputError(at, "`logical_count` is given twice");
      found_ = true, count_at_ = at;
    } else if (name == "layers") {
      if (layers_at_) throw InputError(at, "`layers` is given twice");
      layers_at_ = at;
    } else if (name == "weight") {
      weight_at_ = at;
    }
    return true;
  }
  bool start_array(std::size_t) override {
    if (depth_ == 0) throw InputError(here(), "expected an object with the key `logical_count`, found a list");
    ++depth_;
    if (key_ == "layers" && depth_ > 2) throw InputError(here(), "`layers` must be a list of layer indices");
    if (key_ != "logical_count") return true;
    if (depth_ > 3) throw InputError(here(), "`logical_count` must be [[layer][expert]]; a dump with a list for each step must be summed over steps first: `epsim import FILE --out loads.json` does");
    if (depth_ == 3) out_.logical_count.emplace_back(), row_at_ = here();
    return true;
  }
  bool end_array() override {
    --depth_;
    if (key_ != "logical_count") return true;
    if (depth_ == 1 && out_.logical_count.empty()) throw InputError(count_at_, "`logical_count` has no layers");
    if (depth_ != 2) return true;
    const std::size_t experts = out_.logical_count.back().size();
    if (experts == 0) throw InputError(row_at_, "this layer of `logical_count` has no experts");
    if (experts != out_.logical_count.front().size())
      throw InputError(row_at_, fmt::format("this layer of `logical_count` has {} experts, the first has {}", experts, out_.logical_count.front().size()));
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    std::string what = e.what();  // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while ..."
    for (const std::string_view before : {"] ", "parse error at line "})
      if (const auto at = what.find(before); at != std::string::npos && at < 64) what = what.substr(before == "] " ? at + 2 : what.find(": ", at) + 2);
    throw InputError(locate(file_, position > 0 ? position - 1 : 0), "is no JSON: " + what);
  }

 private:
  /// The place of a token that ends where the parser has come to and is `length` bytes long.
  Location here(std::size_t length = 1) const {
    const auto read = static_cast<std::size_t>(furthest_ - file_->text.data());
    return locate(file_, read >= length ? read - length : 0);
  }
  /// The place of a number: the parser has read one byte past it, except at the end of the text.
  Location number_here() const {
    const auto part = [](char c) { return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E'; };
    const char *begin = file_->text.data(), *at = furthest_;
    if (at > begin && !part(at[-1])) --at;
    while (at > begin && part(at[-1])) --at;
    return locate(file_, static_cast<std::size_t>(at - begin));
  }
  bool other(std::string_view found, std::size_t length = 1) {
    if (depth_ == 0) throw InputError(here(length), fmt::format("expected an object with the key `logical_count`, found {}", found));
    if (key_ == "logical_count") throw InputError(here(length), fmt::format("`logical_count` must be [[layer][expert]] of counts, found {}", found));
    if (key_ == "layers") throw InputError(here(length), fmt::format("`layers` must be a list of layer indices, found {}", found));
    return true;
  }
  bool whole(std::int64_t v, double typed) {
    if (depth_ == 0) throw InputError(number_here(), "expected an object with the key `logical_count`, found a number");
    if (key_ == "layers") {
      if (depth_ != 2 || v < 0 || v > 1'000'000) throw InputError(number_here(), "`layers` must be a list of layer indices");
      if (std::find(out_.layers.begin(), out_.layers.end(), static_cast<int>(v)) != out_.layers.end())
        throw InputError(number_here(), fmt::format("`layers`: layer {} is there twice", static_cast<int>(v)));
      out_.layers.push_back(static_cast<int>(v));
    } else if (key_ == "logical_count") {
      if (depth_ != 3)
        throw InputError(number_here(), "`logical_count` must be [[layer][expert]]: one list of counts for each layer, also where there is one layer");
      if (v < 0 || v > kMaxCount) throw InputError(number_here(), fmt::format("a count must be a whole number from 0 to 2^53, got {}", typed));
      std::vector<std::int64_t>& row = out_.logical_count.back();
      if (row.size() == kMaxExperts) throw InputError(number_here(), fmt::format("a layer has more than {} experts", kMaxExperts));
      total_ += v;
      if (total_ > std::numeric_limits<std::int64_t>::max() / 4) throw InputError(number_here(), "the counts add up to more than 2^61");
      row.push_back(v);
    }
    return true;
  }

  std::shared_ptr<const SourceText> file_;
  const char* furthest_;
  int depth_ = 0;
  std::string key_;  ///< of the outermost object, the one being read
  std::vector<std::string> keys_;
  bool found_ = false;
  std::optional<Location> layers_at_, weight_at_;
  Location count_at_, row_at_;
  std::int64_t total_ = 0;
  LoadDump out_;
};

}  // namespace

LoadDump read_load_dump(std::shared_ptr<const SourceText> file) {
  for (const auto& [magic, what] : {std::pair<std::string_view, std::string_view>{"PK\x03\x04", "an .npz"}, {"\x93NUMPY", "an .npy array"}})
    if (file->text.starts_with(magic)) throw InputError({file, 0, 0}, fmt::format("is {}, expected JSON with `logical_count`: `epsim import {} --out loads.json` makes that of recordings", what, file->name));
  return Reader(std::move(file)).read();
}

}  // namespace epsim
