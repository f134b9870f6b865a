#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

#include "base/units.h"
#include "workloads/import/formats.h"
#include "workloads/import/json_tree.h"

namespace epsim {
namespace {

constexpr std::int64_t kMost = std::int64_t{1} << 40;

struct Event {
  double time = 0;
  std::vector<std::int64_t> in, out;  // bytes to and from each rank
};

/// Bytes of an element, by PyTorch's name of the type.
std::int64_t element_bytes(const JsonReader& r, const Json& args) {
  const Json& type = r.member(args, "dtype");
  constexpr std::array<std::pair<std::string_view, int>, 17> kTypes = {{{"BFloat16", 2}, {"Half", 2}, {"Float", 4}, {"Double", 8}, {"Byte", 1}, {"Char", 1}, {"Short", 2}, {"Int", 4}, {"Long", 8},
                                                                        {"Bool", 1}, {"Float8_e4m3fn", 1}, {"Float8_e5m2", 1}, {"Float8_e4m3fnuz", 1}, {"Float8_e5m2fnuz", 1}, {"UInt16", 2},
                                                                        {"UInt32", 4}, {"UInt64", 8}}};
  for (const auto& [name, bytes] : kTypes)
    if (type.text == name) return bytes;
  r.fail(type, fmt::format("`dtype` {} is not known", type.text));
}

/// Split sizes are written as a text such as "[1, 2]", or as a list.
std::vector<std::int64_t> splits(const JsonReader& r, const Json& args, std::string_view key) {
  const Json& value = r.member(args, key);
  if (value.is_list()) return r.wholes(value, key, 0, kMost);
  std::vector<std::int64_t> out;
  if (value.text.find("...") != std::string::npos)
    r.fail(value, fmt::format("`{}` is cut short (`...`): PyTorch's profiler shortens long lists, so the sizes of large groups are lost", key));
  if (value.text.size() < 2 || value.text.front() != '[' || value.text.back() != ']') r.fail(value, fmt::format("`{}` must be a list such as \"[1, 2]\"", key));
  for (std::size_t begin = 1; begin + 1 < value.text.size();) {
    const std::size_t end = std::min(value.text.find(',', begin), value.text.size() - 1);
    const std::size_t first = std::min(value.text.find_first_not_of(' ', begin), end);
    const auto n = parse_integer(std::string_view(value.text).substr(first, end - first));
    if (!n || *n < 0 || *n > kMost) r.fail(value, fmt::format("`{}` must hold whole numbers", key));
    out.push_back(*n), begin = end + 1;
  }
  return out;
}

/// In bytes. Splits count rows of the first dimension, `nelems` elements of all of them.
std::vector<std::int64_t> split_bytes(const JsonReader& r, const Json& args, std::string_view key, std::string_view nelems) {
  std::vector<std::int64_t> rows = splits(r, args, key);
  std::int64_t sum = 0, per_row = 1;
  for (const std::int64_t n : rows) sum += n;
  if (const Json* elements = args.find(nelems); elements && sum > 0) {
    const std::int64_t n = r.whole(*elements, nelems, 0, kMost);
    if (n % sum != 0) r.fail(*elements, fmt::format("`{}` {} is no multiple of the {} rows of `{}`", nelems, n, sum, key));
    per_row = n / sum;
  }
  for (std::int64_t& n : rows) n *= per_row * element_bytes(r, args);
  return rows;
}

/// The exchanges that one rank's file tells of, in the order of time.
std::vector<Event> exchanges(const JsonReader& r, const Json& root, std::size_t ranks, std::map<std::size_t, std::int64_t>& other_groups) {
  const Json& events = r.list(r.member(root, "traceEvents"), "traceEvents");
  std::vector<const Json*> kernels, calls;
  for (const Json& event : events.items) {
    const Json* args = event.find("args");
    const Json* name = args ? args->find("Collective name") : nullptr;
    if (!name || (name->text != "all_to_allv" && name->text != "all_to_all")) continue;
    const Json* category = event.find("cat");
    (category && category->text == "kernel" ? kernels : calls).push_back(&event);
  }
  // The call on the CPU and its kernel tell of the same exchange.
  std::vector<Event> out;
  for (const Json* event : kernels.empty() ? calls : kernels) {
    const Json& args = *event->find("args");
    Event e;
    const Json* time = event->find("ts");
    e.time = time ? time->number : 0;
    e.in = split_bytes(r, args, "In split size", "In msg nelems");
    if (args.find("Out split size")) e.out = split_bytes(r, args, "Out split size", "Out msg nelems");
    if (e.in.size() != ranks) {
      ++other_groups[e.in.size()];
      continue;
    }
    out.push_back(std::move(e));
  }
  std::ranges::stable_sort(out, {}, &Event::time);
  return out;
}

}  // namespace

Recording read_kineto_splits(const SourceFiles& files, const ImportOptions&) {
  const std::size_t ranks = files.size();
  std::vector<std::vector<Event>> by_rank(ranks);
  std::vector<bool> seen(ranks);
  std::map<std::size_t, std::int64_t> other_groups;  // exchanges by number of ranks
  for (const auto& file : files) {
    const JsonReader r(file);
    const Json root = parse_json(file);
    std::int64_t rank = 0;
    if (const Json* info = root.find("distributedInfo"))
      rank = r.whole_member(*info, "rank", 0, static_cast<std::int64_t>(ranks) - 1);
    else if (ranks > 1)
      throw InputError({file}, "does not say which rank it is of (`distributedInfo`)");
    if (seen[static_cast<std::size_t>(rank)]) throw InputError({file}, fmt::format("is of rank {}, as a file before it", rank));
    seen[static_cast<std::size_t>(rank)] = true;
    by_rank[static_cast<std::size_t>(rank)] = exchanges(r, root, ranks, other_groups);
  }
  const std::size_t count = by_rank.front().size();
  std::int64_t others = 0;
  std::string sizes;
  for (const auto& [size, n] : other_groups) others += n, sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
  if (std::ranges::all_of(by_rank, [](const std::vector<Event>& events) { return events.empty(); }))
    throw InputError({files.front()}, others == 0 ? "has no all-to-all with split sizes"
                                                  : fmt::format("the exchanges are over {} ranks, but {} file{} given: give one file for each rank of a group", sizes, ranks, ranks == 1 ? " is" : "s are"));
  for (std::size_t s = 0; s < ranks; ++s)
    if (by_rank[s].size() != count)
      throw InputError({files.front()}, fmt::format("rank {} has {} exchanges over {} ranks, rank 0 has {}: give one file for each rank of the group", s, by_rank[s].size(), ranks, count));
  Recording out;
  RecordedTraffic traffic;
  std::int64_t disagree = 0;
  const auto n = static_cast<std::int64_t>(ranks);
  for (std::size_t x = 0; x < count; ++x) {
    Matrix<std::int64_t>& bytes = traffic.exchanges.emplace_back(n, n);
    for (std::size_t s = 0; s < ranks; ++s) std::ranges::copy(by_rank[s][x].in, bytes.row(static_cast<std::int64_t>(s)).begin());
    for (std::size_t d = 0; d < ranks; ++d)
      for (std::size_t s = 0; s < by_rank[d][x].out.size() && s < ranks; ++s) disagree += by_rank[d][x].out[s] != by_rank[s][x].in[d] ? 1 : 0;
  }
  if (disagree > 0) out.warnings.push_back(fmt::format("{} times what one rank sends is not what the other receives: are exchanges missing in some files?", disagree));
  if (others > 0) out.warnings.push_back(fmt::format("{} exchanges of groups of another size than {} are left out", others, ranks));
  out.found = fmt::format("PyTorch profiler traces of {} ranks", ranks);
  out.data = std::move(traffic);
  return out;
}

}  // namespace epsim
