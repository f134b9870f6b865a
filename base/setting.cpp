#include "base/setting.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/parser.h>
#include <yaml-cpp/yaml.h>

#include "base/units.h"

namespace epsim {
namespace {

constexpr int kMaxDepth = 32;
constexpr std::size_t kMaxValues = 100'000;

/// Builds settings from yaml-cpp's event stream: unlike its node tree, events show duplicate keys and stop at our limits before memory is spent.
class Builder : public YAML::EventHandler {
 public:
  explicit Builder(std::shared_ptr<const SourceText> source) : source_(std::move(source)) {}

  Setting root;

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& m, YAML::anchor_t) override { add(m, Setting::Kind::null, {}); }
  void OnAlias(const YAML::Mark& m, YAML::anchor_t) override { throw InputError(at(m), "aliases (*name) are not supported"); }
  void OnScalar(const YAML::Mark& m, const std::string&, YAML::anchor_t, const std::string& value) override { add(m, Setting::Kind::scalar, value); }
  void OnSequenceStart(const YAML::Mark& m, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override { open(m, Setting::Kind::list); }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& m, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override { open(m, Setting::Kind::map); }
  void OnMapEnd() override { close(); }

 private:
  struct Level {
    Setting value;
    bool expects_value = false;  // in a map: a key was read
    std::string key;
    Location key_at;
  };

  Location at(const YAML::Mark& m) const { return {source_, m.line + 1, m.column + 1}; }

  void open(const YAML::Mark& m, Setting::Kind kind) {
    if (levels_.size() >= kMaxDepth) throw InputError(at(m), fmt::format("nested deeper than {} levels", kMaxDepth));
    if (!levels_.empty() && levels_.back().value.is_map() && !levels_.back().expects_value) throw InputError(at(m), "expected a plain key");
    count(m);
    Level level;
    level.value.kind = kind;
    level.value.at = at(m);
    levels_.push_back(std::move(level));
  }

  void close() {
    Setting done = std::move(levels_.back().value);
    levels_.pop_back();
    place(std::move(done));
  }

  void add(const YAML::Mark& m, Setting::Kind kind, const std::string& text) {
    count(m);
    if (!levels_.empty() && levels_.back().value.is_map() && !levels_.back().expects_value) {
      Level& level = levels_.back();
      if (kind == Setting::Kind::null || text.empty()) throw InputError(at(m), "expected a key");
      if (level.value.find(text)) throw InputError(at(m), fmt::format("the key `{}` is given twice", text));
      level.key = text, level.key_at = at(m), level.expects_value = true;
      return;
    }
    Setting s;
    s.kind = kind, s.text = text, s.at = at(m);
    place(std::move(s));
  }

  void place(Setting s) {
    if (levels_.empty()) {
      root = std::move(s);
    } else if (Level& level = levels_.back(); level.value.is_map()) {
      if (s.kind == Setting::Kind::null) s.at = level.key_at;
      level.value.entries.push_back({std::move(level.key), level.key_at, std::move(s)});
      level.expects_value = false;
    } else {
      level.value.items.push_back(std::move(s));
    }
  }

  void count(const YAML::Mark& m) {
    if (++values_ > kMaxValues) throw InputError(at(m), fmt::format("more than {} values", kMaxValues));
  }

  std::shared_ptr<const SourceText> source_;
  std::vector<Level> levels_;
  std::size_t values_ = 0;
};

/// yaml-cpp recurses on nested flow collections while it scans ahead; a text that only opens brackets would overflow the stack before our own limit is asked.
void limit_brackets(const std::shared_ptr<const SourceText>& source) {
  int open = 0;
  for (std::size_t i = 0; i < source->text.size(); ++i) {
    const char c = source->text[i];
    if (c == '[' || c == '{') {
      if (++open > 8 * kMaxDepth) throw InputError(locate(source, i), "too many nested brackets");
    } else if (c == ']' || c == '}') {
      open = std::max(0, open - 1);
    }
  }
}

/// Where the text ends that a quote begins at `i`: single quotes are doubled inside, double ones follow a backslash.
std::size_t end_of_quoted(const std::string& text, std::size_t i) {
  const char quote = text[i];
  while (++i < text.size()) {
    const bool escaped = quote == '"' ? text[i] == '\\' : text[i] == quote && i + 1 < text.size() && text[i + 1] == quote;
    if (escaped)
      ++i;
    else if (text[i] == quote)
      break;
  }
  return i;
}

/// Where the innermost bracket opens that is never closed, quotes and comments left aside; no source where there is none.
Location unclosed_bracket(const std::shared_ptr<const SourceText>& source) {
  const std::string& text = source->text;
  std::vector<std::size_t> open;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i], before = i == 0 ? '\n' : text[i - 1];
    const bool begins = std::string_view(" \t\n[{,:").find(before) != std::string_view::npos;
    if (begins && (c == '\'' || c == '"'))
      i = end_of_quoted(text, i);
    else if (begins && c == '#')
      i = std::min(text.find('\n', i), text.size());
    else if (c == '[' || c == '{')
      open.push_back(i);
    else if ((c == ']' || c == '}') && !open.empty())
      open.pop_back();
  }
  return open.empty() ? Location{} : locate(source, open.back());
}

/// A bracket that is never closed explains every error that follows from it.
void report_unclosed(const std::shared_ptr<const SourceText>& source) {
  if (const Location at = unclosed_bracket(source); at.source) throw InputError(at, "this bracket is never closed");
}

/// The single entry of {part: settings}, or null.
Setting::Entry* only_entry(Setting& s) { return s.is_map() && s.entries.size() == 1 ? &s.entries.front() : nullptr; }

std::string part_name(const Setting& s) {
  if (s.is_scalar()) return s.text;
  return s.is_map() && s.entries.size() == 1 ? s.entries.front().key : std::string{};
}

/// Turns a bare part name into {name: {}} so that settings can be laid on it.
void spell_out_part(Setting& s, const std::string& fallback) {
  if (s.is_map()) return;
  Setting::Entry entry{s.is_scalar() ? s.text : fallback, s.at, {}};
  entry.value.kind = Setting::Kind::map;
  entry.value.at = s.at;
  Setting map;
  map.kind = Setting::Kind::map, map.at = s.at;
  map.entries.push_back(std::move(entry));
  s = std::move(map);
}

void make_map(Setting& s) {
  if (!s.is_map()) {
    const Location at = s.at;
    s = Setting{};
    s.kind = Setting::Kind::map, s.at = at;
  }
}

constexpr std::string_view kOverride = "--set";

/// The override that gave all of `replaced`, or something in it, at `key` or below: it is lost where `key` is set anew. No source where there is none.
Location lost_override(const Setting& replaced, std::string_view key, const std::shared_ptr<const SourceText>& by) {
  if (const auto& source = replaced.at.source; source && source != by && source->name == kOverride) {
    const std::string_view text = source->text, path = text.substr(0, text.find('='));
    if (path.starts_with(key) && (path.size() == key.size() || path[key.size()] == '.')) return {source, 1, 1};
  }
  Location lost;
  for (const Setting::Entry& e : replaced.entries)
    if (!lost.source) lost = lost_override(e.value, key, by);
  return lost;
}

/// True where a text reads back as itself without quotes, wherever it stands.
bool is_plain(const std::string& text) {
  const auto harmless = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || std::string_view("_./+-() ").find(c) != std::string_view::npos;
  };
  if (text.empty() || text == "null" || text == "Null" || text == "NULL" || text.front() == ' ' || text.back() == ' ' || text.starts_with("...")) return false;
  if (text.front() == '-' && !parse_number(text)) return false;
  return std::all_of(text.begin(), text.end(), harmless);
}

std::string scalar_yaml(const std::string& text) {
  if (is_plain(text)) return text;
  // Only double quotes can spell line breaks and control characters.
  const bool control = std::any_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (!control)
      out += c == '\'' ? "''" : std::string(1, c);
    else if (byte < 0x20 || byte == 0x7f)
      out += fmt::format("\\x{:02x}", byte);
    else
      out += (c == '"' || c == '\\' ? "\\" : "") + std::string(1, c);
  }
  return control ? '"' + out + '"' : "'" + out + "'";
}

}  // namespace

const Setting* Setting::find(std::string_view key) const {
  for (const Entry& e : entries)
    if (e.key == key) return &e.value;
  return nullptr;
}

Setting& Setting::get_or_add(std::string_view key, Location where) {
  for (Entry& e : entries)
    if (e.key == key) return e.value;
  entries.push_back({std::string(key), where, {}});
  entries.back().value.at = where;
  return entries.back().value;
}

Setting parse_yaml(std::shared_ptr<const SourceText> source) {
  limit_brackets(source);
  std::istringstream in(source->text);
  Builder builder(source);
  try {
    YAML::Parser parser(in);
    parser.HandleNextDocument(builder);
    if (parser) {
      Builder rest(source);
      if (parser.HandleNextDocument(rest)) throw InputError({source, 0, 0}, "expected one YAML document, found more");
    }
  } catch (const YAML::Exception& e) {
    report_unclosed(source);
    throw InputError({source, e.mark.line + 1, e.mark.column + 1}, e.msg);
  } catch (const InputError&) {
    report_unclosed(source);
    throw;
  }
  if (!builder.root.at.source) builder.root.at = {source, 0, 0};
  return std::move(builder.root);
}

void overlay(Setting& base, const Setting& over, const PartKeys& parts) {
  if (!over.is_map()) {
    base = over;
    return;
  }
  make_map(base);
  for (const Setting::Entry& e : over.entries) {
    Setting& slot = base.get_or_add(e.key, e.at);
    const auto part = parts.find(e.key);
    if (part == parts.end()) {
      if (e.value.is_map() && slot.is_map())
        overlay(slot, e.value, {});
      else
        slot = e.value;
    } else if (part_name(slot) == part_name(e.value) && only_entry(slot) && e.value.is_map()) {
      overlay(only_entry(slot)->value, e.value.entries.front().value, {});
    } else if (part_name(slot) != part_name(e.value) || !e.value.is_scalar()) {
      slot = e.value;
    }
  }
}

void apply_override(Setting& root, std::string_view assignment, const PartKeys& parts) {
  auto source = std::make_shared<SourceText>(SourceText{std::string(kOverride), std::string(assignment)});
  const auto equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0) throw InputError({source, 1, 1}, "expected key=value");
  // The value is parsed in place of the whole text so that its locations point into what was typed.
  auto padded = std::make_shared<SourceText>(SourceText{source->name, std::string(equals + 1, ' ') + std::string(assignment.substr(equals + 1))});
  Setting value = parse_yaml(padded);
  const Location at{source, 1, 1};
  const auto relocate = [&](auto&& self, Setting& s) -> void {
    if (s.at.source) s.at.source = source;
    for (Setting& i : s.items) self(self, i);
    for (Setting::Entry& e : s.entries) e.at.source = source, self(self, e.value);
  };
  relocate(relocate, value);

  make_map(root);
  Setting* target = &root;
  std::string_view path = assignment.substr(0, equals);
  bool first = true;
  while (true) {
    const auto dot = path.find('.');
    const std::string key(path.substr(0, dot));
    if (key.empty()) throw InputError(at, "expected key=value, found an empty key");
    const auto part = first ? parts.find(key) : parts.end();
    target = &target->get_or_add(key, at);
    if (dot == std::string_view::npos) break;
    if (part != parts.end()) {
      spell_out_part(*target, part->second);
      if (!only_entry(*target)) throw InputError(target->at, fmt::format("`{}` must name one part before its settings can be set", key));
      target = &only_entry(*target)->value;
    } else if (target->is_scalar()) {
      throw InputError(at, fmt::format("`{}` is a value: it has no settings of its own", key));
    }
    make_map(*target);
    path = path.substr(dot + 1);
    first = false;
  }
  const Location lost = lost_override(*target, assignment.substr(0, equals), source);
  *target = std::move(value);
  for (Setting::Entry& e : root.entries)  // an unknown key must be reported where it was typed
    if (&e.value == target) e.at = at;
  if (lost.source) throw InputError(lost, fmt::format("has no effect: `{}` is set after it; leave out one, or set the part before its settings", assignment.substr(0, equals)));
}

PartChoice part_choice(const Setting& value, Diagnostics& problems) {
  PartChoice choice;
  choice.at = value.at;
  choice.settings.kind = Setting::Kind::map;
  choice.settings.at = value.at;
  if (value.is_scalar()) {
    choice.name = value.text;
  } else if (value.is_map() && value.entries.size() == 1) {
    const Setting::Entry& e = value.entries.front();
    choice.name = e.key, choice.at = e.at;
    if (e.value.is_map())
      choice.settings = e.value;
    else if (e.value.kind != Setting::Kind::null)
      problems.add(e.value.at, fmt::format("expected the settings of `{}` as {{key: value}}", e.key));
  } else {
    problems.add(value.at, "expected the name of a part, or {name: {settings}}");
  }
  return choice;
}

std::string to_yaml(const Setting& s) {
  switch (s.kind) {
    case Setting::Kind::null: return "~";
    case Setting::Kind::scalar: return scalar_yaml(s.text);
    case Setting::Kind::list: {
      std::string out;
      for (const Setting& i : s.items) out += (out.empty() ? "" : ", ") + to_yaml(i);
      return "[" + out + "]";
    }
    case Setting::Kind::map: {
      std::string out;
      for (const Setting::Entry& e : s.entries) out += (out.empty() ? "" : ", ") + scalar_yaml(e.key) + ": " + to_yaml(e.value);
      return "{" + out + "}";
    }
  }
  return {};
}

}  // namespace epsim
