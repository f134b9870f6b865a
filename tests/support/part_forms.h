#pragma once
#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "base/catalog.h"

namespace epsim::testing {

/// A part with settings, as an experiment file spells them.
struct PartForm {
  std::string part;
  std::map<std::string, std::string> given = {};
  std::map<std::string, std::string> defaults = {};  ///< of the settings that are not given

  std::string yaml() const {
    std::string settings;
    for (const auto& [key, value] : given) settings += fmt::format("{}{}: {}", settings.empty() ? "" : ", ", key, value);
    return settings.empty() ? part : fmt::format("{{{}: {{{}}}}}", part, settings);
  }
  /// The value in force; empty where the part has no such setting.
  std::string operator[](const std::string& key) const {
    for (const auto* all : {&given, &defaults})
      if (const auto it = all->find(key); it != all->end()) return it->second;
    return "";
  }
};

/// Settings that go together: a part that refuses to be made without any of its numbers, and values that ask for others.
inline const std::map<std::string, std::map<std::string, std::string>>& settings_that_go_with() {
  static const std::map<std::string, std::map<std::string, std::string>> all = {{"grouped_topk", {{"groups", "4"}, {"groups_kept", "2"}}},
                                                                                {"early_exit", {{"rate", "0.3"}}},
                                                                                {"zero_experts", {{"zero", "1"}, {"identity", "1"}, {"constant", "1"}}},
                                                                                {"chunk_experts=true", {{"chunks", "2"}}},
                                                                                {"form=moe", {{"factor", "3/4"}}},
                                                                                {"form=moe_ep", {{"factor", "3/4"}}}};
  return all;
}

/// Every part of a catalogue with the settings that it needs, and then with each other value of its choices and flags, one at a time, and of numbers that change how it works.
template <class Part, class... Context>
std::vector<PartForm> part_forms(const Catalog<Part, Context...>& catalog) {
  static const std::map<std::string, std::string, std::less<>> kNumbers = {{"chunks", "2"}, {"group", "5"}, {"window", "2"}, {"jitter", "0.1"}, {"noise", "0.1"}};
  std::vector<PartForm> forms;
  for (const auto& entry : catalog.entries()) {
    Params listing;
    entry.make(listing, Context{}...);
    PartForm first{entry.name};
    if (const auto more = settings_that_go_with().find(entry.name); more != settings_that_go_with().end()) first.given = more->second;
    for (const ParamDoc& d : listing.docs()) {
      if (!d.fallback.empty()) first.defaults[d.key] = d.fallback;
      if (d.fallback.empty() && d.type.starts_with("an integer")) first.given.try_emplace(d.key, "2");
      if (d.fallback.empty() && d.type.starts_with("a fraction")) first.given.try_emplace(d.key, "3/4");
    }
    forms.push_back(first);
    const auto add = [&](const std::string& key, const std::string& value) {
      if (value == first[key]) return;
      PartForm form = first;
      form.given[key] = value;
      if (const auto more = settings_that_go_with().find(key + "=" + value); more != settings_that_go_with().end()) form.given.insert(more->second.begin(), more->second.end());
      forms.push_back(std::move(form));
    };
    for (const ParamDoc& d : listing.docs()) {
      if (d.type == "true or false") add(d.key, "true"), add(d.key, "false");
      if (const auto number = kNumbers.find(d.key); number != kNumbers.end()) add(d.key, number->second);
      if (constexpr std::string_view kChoice = "one of "; d.type.starts_with(kChoice))
        for (std::size_t at = kChoice.size(); at < d.type.size();) {
          const std::size_t end = std::min(d.type.find(", ", at), d.type.size());
          add(d.key, d.type.substr(at, end - at));
          at = end + 2;
        }
    }
  }
  return forms;
}

/// The first form of each part.
inline std::vector<PartForm> first_forms(const std::vector<PartForm>& forms) {
  std::vector<PartForm> first;
  for (const PartForm& f : forms)
    if (first.empty() || first.back().part != f.part) first.push_back(f);
  return first;
}

}  // namespace epsim::testing
