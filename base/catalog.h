#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/params.h"

namespace epsim {

/// The named parts of one kind: a value that is built, added to and passed on. A maker reads its settings and gives the part;
/// called with listing-mode Params it only documents its settings and gives a part whose `summary` is one sentence about it.
template <class Part, class... Context>
class Catalog {
 public:
  using Maker = std::function<Part(Params&, Context...)>;
  struct Entry {
    std::string name;
    Maker make;
  };

  explicit Catalog(std::string kind) : kind_(std::move(kind)) {}

  void add(std::string name, Maker make) { entries_.push_back({std::move(name), std::move(make)}); }
  const std::string& kind() const { return kind_; }
  const std::vector<Entry>& entries() const { return entries_; }
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const Entry& e : entries_) out.push_back(e.name);
    return out;
  }
  const Entry* find(std::string_view name) const {
    for (const Entry& e : entries_)
      if (e.name == name) return &e;
    return nullptr;
  }

  /// Makes the part that `value` names. An unknown name, a bad setting or a setting that nobody read is reported to `problems`.
  Part make(const Setting& value, Diagnostics& problems, Context... context) const {
    const std::size_t before = problems.size();
    const PartChoice choice = part_choice(value, problems);
    if (problems.size() != before) return Part{};
    const Entry* entry = find(choice.name);
    if (!entry) {
      problems.add(choice.at, "there is no " + kind_ + " `" + choice.name + "`" + suggest(choice.name, names()));
      return Part{};
    }
    Params params(choice.settings, kind_ + " `" + choice.name + "`", problems);
    Part part{};
    try {
      part = entry->make(params, context...);
    } catch (const InputError& e) {  // of a file that the part reads: the rest of the experiment is still worth checking
      problems.add(e);
    }
    params.finish([this](std::string_view key) { return others_with(key); });
    return part;
  }

 private:
  /// "; choose another capacity first: gshard, megatron": the parts that have a setting.
  std::string others_with(std::string_view key) const {
    std::string names;
    for (const Entry& e : entries_) {
      Params listing;
      e.make(listing, Context{}...);
      for (const ParamDoc& doc : listing.docs())
        if (doc.key == key) names += (names.empty() ? "" : ", ") + e.name;
    }
    return names.empty() ? "" : "; choose another " + kind_ + " first, one that has it: " + names;
  }

  std::string kind_;
  std::vector<Entry> entries_;
};

}  // namespace epsim
