#include "workloads/import/config_reader.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "workloads/import/json_text.h"

namespace epsim {
namespace {

constexpr std::int64_t kMost = std::int64_t{1} << 31;  // of any size: products of three still fit a double exactly enough to print

std::string list(const ConfigReader::Keys& keys) {
  std::string out;
  for (const std::string& key : keys) out += (out.empty() ? "`" : " or `") + key + "`";
  return out;
}

}  // namespace

struct ConfigReader::Json {
  nlohmann::json whole;
  const nlohmann::json* object = nullptr;
};

ConfigReader::ConfigReader(std::shared_ptr<const SourceText> file) : file_(std::move(file)), json_(std::make_unique<Json>()) {
  try {
    json_->whole = nlohmann::json::parse(file_->text);
  } catch (const nlohmann::json::parse_error& e) {
    throw InputError(locate(file_, e.byte > 0 ? e.byte - 1 : 0), "not valid JSON");
  } catch (const nlohmann::json::exception&) {  // what it refuses without a place: numbers like 1e999
    throw InputError({file_, 0, 0}, "not usable JSON: a number is out of range");
  }
  if (!json_->whole.is_object()) throw InputError(json_location(file_, {}), "expected a JSON object, as in a Hugging Face config.json");
  json_->object = &json_->whole;
  if (const auto nested = json_->whole.find("text_config"); nested != json_->whole.end() && nested->is_object())
    json_->object = &*nested, path_ = {"text_config"};
}

ConfigReader::~ConfigReader() = default;

std::optional<std::string> ConfigReader::find(const Keys& keys) const {
  for (const std::string& key : keys)
    if (const auto it = json_->object->find(key); it != json_->object->end() && !it->is_null()) return key;
  return {};
}

Location ConfigReader::at(const std::string& key) const {
  std::vector<std::string> path = path_;
  path.push_back(key);
  return json_location(file_, path);
}

Location ConfigReader::at() const { return json_location(file_, path_); }

void ConfigReader::error(const Keys& keys, std::string message) {
  const auto key = find(keys);
  problems_.add(key ? at(*key) : at(), std::move(message));
}

std::int64_t ConfigReader::size(const Keys& keys, const std::string& what) {
  if (find(keys)) return integer(keys, 1, 1);
  problems_.add(at(), fmt::format("{} is missing: expected {}", what, list(keys)));
  return 1;
}

std::int64_t ConfigReader::integer(const Keys& keys, std::int64_t fallback, std::int64_t min) {
  std::optional<std::int64_t> value;
  for (const std::string& key : keys) {
    if (!find({key})) continue;
    used_.push_back(key);
    const nlohmann::json& v = (*json_->object)[key];
    const bool whole = v.is_number_integer() && !(v.is_number_unsigned() && v.get<std::uint64_t>() > static_cast<std::uint64_t>(kMost));
    const std::int64_t n = whole ? v.get<std::int64_t>() : -1;
    if (!whole || n < min || n > kMost)
      problems_.add(at(key), fmt::format("`{}` must be an integer from {} to 2^31{}", key, min,
                                         v.is_primitive() ? ", got " + v.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace).substr(0, 40) : ""));
    else if (value && *value != n)
      problems_.add(at(key), fmt::format("`{}` is {}, but another name of it says {}", key, n, *value));
    else
      value = n;
  }
  return value.value_or(fallback);
}

double ConfigReader::number(const std::string& key, double fallback) {
  if (!find({key})) return fallback;
  used_.push_back(key);
  const nlohmann::json& v = (*json_->object)[key];
  if (v.is_number() && std::isfinite(v.get<double>()) && v.get<double>() > 0) return v.get<double>();
  problems_.add(at(key), fmt::format("`{}` must be a number above 0", key));
  return fallback;
}

bool ConfigReader::flag(const Keys& keys, bool fallback) {
  const auto key = find(keys);
  if (!key) return fallback;
  used_.push_back(*key);
  const nlohmann::json& v = (*json_->object)[*key];
  if (v.is_boolean()) return v.get<bool>();
  problems_.add(at(*key), fmt::format("`{}` must be true or false", *key));
  return fallback;
}

std::string ConfigReader::text(const Keys& keys, const std::string& fallback) {
  const auto key = find(keys);
  if (!key) return fallback;
  used_.push_back(*key);
  const nlohmann::json& v = (*json_->object)[*key];
  if (v.is_string()) return v.get<std::string>();
  problems_.add(at(*key), fmt::format("`{}` must be a text", *key));
  return fallback;
}

std::vector<std::int64_t> ConfigReader::integers(const std::string& key) {
  std::vector<std::int64_t> out;
  if (!find({key})) return out;
  used_.push_back(key);
  const nlohmann::json& v = (*json_->object)[key];
  bool good = v.is_array();
  if (good)
    for (const nlohmann::json& item : v) {
      good = good && item.is_number_unsigned() && item.get<std::uint64_t>() < static_cast<std::uint64_t>(kMost);
      if (good) out.push_back(item.get<std::int64_t>());
    }
  if (!good) problems_.add(at(key), fmt::format("`{}` must be a list of integers of at least 0", key));
  return out;
}

std::string ConfigReader::nested_text(const std::string& key, const std::string& inner) {
  for (const nlohmann::json* object : std::initializer_list<const nlohmann::json*>{json_->object, &json_->whole}) {
    const auto outer = object->find(key);
    if (outer == object->end() || outer->is_null()) continue;
    if (outer->is_object()) {
      const auto value = outer->find(inner);
      if (value == outer->end() || value->is_null()) return {};
      if (value->is_string()) return value->get<std::string>();
    }
    problems_.add(object == json_->object ? at(key) : json_location(file_, {key}), fmt::format("`{}` must be an object whose `{}` is a text", key, inner));
    return {};
  }
  return {};
}

}  // namespace epsim
