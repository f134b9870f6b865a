#include "base/params.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

namespace epsim {
namespace {

std::string in_words(std::string_view words, std::string number) { return words.empty() ? std::move(number) : std::string(words); }

}  // namespace

Params::Params(const Setting& settings, std::string context, Diagnostics& problems)
    : settings_(&settings), context_(std::move(context)), problems_(&problems), problems_before_(problems.size()) {}

const Setting* Params::read(std::string_view key, std::string_view type, std::string fallback, bool required, std::string_view help) {
  const auto known = std::find_if(docs_.begin(), docs_.end(), [&](const ParamDoc& d) { return d.key == key; });
  if (known == docs_.end()) docs_.push_back({std::string(key), std::string(type), required ? "" : std::move(fallback), std::string(help)});
  if (!settings_) return nullptr;
  const Setting* value = settings_->find(key);
  if (!value && required) problems_->add(settings_->at, fmt::format("{} needs `{}` ({}): {}", context_, key, type, help));
  return value;
}

template <class T, class Parse>
T Params::quantity(std::string_view key, std::string_view type, std::string_view help, std::optional<T> fallback, std::string fallback_text, Parse parse,
                   T stand_in) {
  const Setting* value = read(key, type, std::move(fallback_text), !fallback, help);
  if (!value) return fallback.value_or(stand_in);
  if (value->is_scalar())
    if (const std::optional<T> v = parse(value->text)) return *v;
  problems_->add(value->at, fmt::format("`{}` must be {}{}", key, type, value->is_scalar() ? fmt::format(", got `{}`", value->text) : ""));
  return fallback.value_or(stand_in);
}

std::int64_t Params::integer(std::string_view key, std::string_view help, std::optional<std::int64_t> fallback, std::int64_t min, std::int64_t max,
                             std::string_view fallback_text) {
  const auto too_large = [&] {  // a limit that is far off is only named to those who meet it
    const Setting* value = settings_ ? settings_->find(key) : nullptr;
    const auto v = value && value->is_scalar() ? parse_integer(value->text) : std::nullopt;
    return v && *v > max;
  };
  const std::string type = max >= std::int64_t{1} << 40 && !too_large() ? fmt::format("an integer of at least {}", min) : fmt::format("an integer from {} to {}", min, max);
  const auto in_range = [&](std::string_view s) -> std::optional<std::int64_t> {
    const auto v = parse_integer(s);
    return v && *v >= min && *v <= max ? v : std::nullopt;
  };
  return quantity<std::int64_t>(key, type, help, fallback, in_words(fallback_text, fallback ? fmt::format("{}", *fallback) : ""),
                               in_range, std::max<std::int64_t>(min, 1));
}

double Params::number(std::string_view key, std::string_view help, std::optional<double> fallback, double min, double max, std::string_view fallback_text) {
  const std::string type = max >= 1e300 ? fmt::format("a number of at least {}", min) : fmt::format("a number from {} to {}", min, max);
  const auto in_range = [&](std::string_view s) -> std::optional<double> {
    const auto v = parse_number(s);
    return v && *v >= min && *v <= max ? v : std::nullopt;
  };
  return quantity<double>(key, type, help, fallback, in_words(fallback_text, fallback ? format_number(*fallback) : ""), in_range, min);
}

bool Params::flag(std::string_view key, std::string_view help, std::optional<bool> fallback) {
  const auto parse = [](std::string_view s) -> std::optional<bool> {
    if (s == "true") return true;
    if (s == "false") return false;
    return {};
  };
  return quantity<bool>(key, "true or false", help, fallback, fallback ? (*fallback ? "true" : "false") : "", parse, false);
}

std::string Params::text(std::string_view key, std::string_view help, std::optional<std::string> fallback) {
  const auto parse = [](std::string_view s) -> std::optional<std::string> { return std::string(s); };
  return quantity<std::string>(key, "a text", help, fallback, fallback && fallback->empty() ? "none" : fallback.value_or(""), parse, "");
}

std::string Params::choice(std::string_view key, std::string_view help, const std::vector<std::string>& names, std::optional<std::string> fallback) {
  const Setting* value = read(key, fmt::format("one of {}", fmt::join(names, ", ")), fallback.value_or(""), !fallback, help);
  const std::string stand_in = fallback.value_or(names.empty() ? "" : names.front());
  if (!value) return stand_in;
  if (value->is_scalar() && std::find(names.begin(), names.end(), value->text) != names.end()) return value->text;
  problems_->add(value->at, value->is_scalar() ? fmt::format("`{}` has no value `{}`{}", key, value->text, suggest(value->text, names))
                                               : fmt::format("`{}` must be one of {}", key, fmt::join(names, ", ")));
  return stand_in;
}

std::string Params::path(std::string_view key, std::string_view help, std::optional<std::string> fallback) {
  const auto parse = [](std::string_view s) -> std::optional<std::string> { return s.empty() ? std::nullopt : std::optional<std::string>(s); };
  const std::string file = quantity<std::string>(key, "a path", help, fallback, fallback && fallback->empty() ? "none" : fallback.value_or(""), parse, "");
  return has(key) ? resolve_path(file, at(key)) : file;
}

Time Params::time(std::string_view key, std::string_view help, std::optional<Time> fallback, std::string_view fallback_text) {
  return quantity<Time>(key, "a time with its unit, such as 2us", help, fallback, in_words(fallback_text, fallback ? format_seconds(fallback->seconds()) : ""),
                        parse_time, Time{});
}

Bytes Params::bytes(std::string_view key, std::string_view help, std::optional<Bytes> fallback) {
  return quantity<Bytes>(key, "a size with its unit, such as 16B or 80GiB", help, fallback, fallback ? fmt::format("{}B", *fallback) : "", parse_bytes, 0);
}

Bandwidth Params::bandwidth(std::string_view key, std::string_view help, std::optional<Bandwidth> fallback, std::string_view fallback_text) {
  const auto positive = [](std::string_view s) {
    const auto v = parse_bandwidth(s);
    return v && *v > 0 ? v : std::nullopt;
  };
  return quantity<Bandwidth>(key, "a rate above 0 with its unit, such as 50GB/s or 400Gbps", help, fallback,
                             in_words(fallback_text, fallback ? format_bandwidth(*fallback) : ""), positive, 1.0);
}

Rational Params::rational(std::string_view key, std::string_view help, std::optional<Rational> fallback) {
  const auto positive = [](std::string_view s) {
    const auto v = parse_rational(s);
    return v && v->num > 0 ? v : std::nullopt;
  };
  return quantity<Rational>(key, "a fraction above 0, such as 1.25 or 5/4", help, fallback, fallback ? format_rational(*fallback) : "", positive,
                            Rational{1, 1});
}

std::optional<std::vector<int>> Params::ranges(std::string_view key, std::string_view help) {
  constexpr std::string_view type = "numbers or ranges, such as 3-60 or [1, 4-6]";
  const Setting* value = read(key, type, "all", false, help);
  if (!value) return {};
  std::vector<int> out;
  const auto bad = [&](const Setting& s) {
    problems_->add(s.at, fmt::format("`{}` must be {}{}", key, type, s.is_scalar() ? fmt::format(", got `{}`", s.text) : ""));
    return std::nullopt;
  };
  std::vector<const Setting*> pieces;
  if (value->kind == Setting::Kind::list)
    for (const Setting& s : value->items) pieces.push_back(&s);
  else
    pieces.push_back(value);
  for (const Setting* piece : pieces) {
    if (!piece->is_scalar()) return bad(*piece);
    std::string_view rest = piece->text;
    while (true) {
      const std::string_view item = rest.substr(0, rest.find(','));
      const auto dash = item.find('-');
      const auto first = parse_integer(item.substr(0, dash));
      const auto last = dash == std::string_view::npos ? first : parse_integer(item.substr(dash + 1));
      if (!first || !last || *first < 0 || *last < *first || *last > 100'000) return bad(*piece);
      for (std::int64_t v = *first; v <= *last; ++v) out.push_back(static_cast<int>(v));
      if (rest.find(',') == std::string_view::npos) break;
      rest.remove_prefix(rest.find(',') + 1);
    }
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

void Params::custom(std::string_view key, std::string_view type, std::string_view fallback, std::string_view help,
                    const std::function<void(const Setting&, Diagnostics&)>& read_value) {
  if (const Setting* value = read(key, type, std::string(fallback), false, help)) read_value(*value, *problems_);
}

Params Params::section(std::string_view key, std::string_view help) {
  const Setting* value = read(key, "a map", "{}", false, help);
  if (listing()) return {};
  if (value && !value->is_map()) {
    problems_->add(value->at, fmt::format("`{}` must be a map of key: value", key));
    value = nullptr;
  }
  auto empty = std::make_shared<Setting>();
  empty->kind = Setting::Kind::map;
  empty->at = at(key);
  Params section(value ? *value : *empty, fmt::format("`{}`", key), *problems_);
  section.owned_ = std::move(empty);
  return section;
}

void Params::error(std::string_view key, std::string message) {
  if (problems_) problems_->add(at(key), std::move(message));
}

Location Params::at(std::string_view key) const {
  const Setting* value = settings_ ? settings_->find(key) : nullptr;
  return value ? value->at : at();
}

Location Params::at() const { return settings_ ? settings_->at : Location{}; }

void Params::finish(const std::function<std::string(std::string_view)>& instead) {
  if (!settings_) return;
  std::vector<std::string> known;
  for (const ParamDoc& d : docs_) known.push_back(d.key);
  for (const Setting::Entry& e : settings_->entries) {
    if (std::find(known.begin(), known.end(), e.key) != known.end()) continue;
    const std::string other = instead && !nearest(e.key, known) ? instead(e.key) : "";
    problems_->add(e.at, fmt::format("{} has no setting `{}`{}", context_, e.key, other.empty() ? suggest(e.key, known) : other));
  }
}

std::string resolve_path(const std::string& file, const Location& written_at) {
  const std::filesystem::path path(file);
  if (file.empty() || path.is_absolute() || !written_at.source || written_at.source->name.starts_with("--")) return file;
  return (std::filesystem::path(written_at.source->name).parent_path() / path).lexically_normal().string();
}

}  // namespace epsim
