#include "workloads/import/safetensors.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>

#include "base/half.h"
#include "workloads/import/json_tree.h"

namespace epsim {
namespace {

static_assert(std::endian::native == std::endian::little, "values are copied as they lie in the file");

template <class Stored, class Wide>
void widen(std::string_view bytes, std::vector<Wide>& out) {
  for (std::size_t at = 0; at + sizeof(Stored) <= bytes.size(); at += sizeof(Stored)) {
    Stored value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    out.push_back(static_cast<Wide>(value));
  }
}

using Widen = void (*)(std::string_view, NpyArray&);

template <class Stored>
constexpr Widen kWhole = [](std::string_view bytes, NpyArray& a) { widen<Stored>(bytes, a.integers); };
template <class Stored>
constexpr Widen kFloat = [](std::string_view bytes, NpyArray& a) { a.is_float = true, widen<Stored>(bytes, a.floats); };

struct Type {
  std::string_view name;
  std::int64_t bytes;
  Widen widen;
};
constexpr Type kTypes[] = {{"I8", 1, kWhole<std::int8_t>},   {"U8", 1, kWhole<std::uint8_t>},   {"I16", 2, kWhole<std::int16_t>}, {"U16", 2, kWhole<std::uint16_t>},
                           {"I32", 4, kWhole<std::int32_t>}, {"U32", 4, kWhole<std::uint32_t>}, {"I64", 8, kWhole<std::int64_t>}, {"F32", 4, kFloat<float>},
                           {"F64", 8, kFloat<double>},       {"F16", 2, kFloat<Half>},          {"BF16", 2, kFloat<BFloat16>}};

}  // namespace

std::map<std::string, NpyArray> read_safetensors(const std::shared_ptr<const SourceText>& file) {
  const std::string& text = file->text;
  std::uint64_t header = 0;
  if (text.size() >= sizeof header) std::memcpy(&header, text.data(), sizeof header);
  if (text.size() < sizeof header || header > text.size() - sizeof header) throw InputError({file}, "is no safetensors file: its header is cut short");
  const std::size_t data = sizeof header + header;
  const JsonReader r(file);
  const Json root = parse_json(file, sizeof header, data);
  if (!root.is_map()) r.fail(root, "a safetensors header must be an object");
  std::map<std::string, NpyArray> out;
  for (const auto& [name, entry] : root.entries) {
    if (name == "__metadata__") continue;
    const auto size = static_cast<std::int64_t>(text.size() - data);
    const std::vector<std::int64_t> range = r.wholes(r.member(entry, "data_offsets"), "data_offsets", 0, size);
    const std::string& type_name = r.member(entry, "dtype").text;
    NpyArray a;
    a.shape = r.wholes(r.member(entry, "shape"), "shape", 0, size);
    const Type* type = nullptr;
    for (const Type& t : kTypes)
      if (t.name == type_name) type = &t;
    if (!type) r.fail(entry, fmt::format("array `{}` has type `{}`, expected integers, F16, BF16, F32 or F64", name, type_name));
    if (range.size() != 2 || range[0] > range[1]) r.fail(entry, fmt::format("array `{}`: `data_offsets` must be a begin and an end", name));
    std::int64_t count = 1;
    for (const std::int64_t length : a.shape) count = length != 0 && count > size / length ? size + 1 : count * length;
    if (count > size || count * type->bytes != range[1] - range[0])
      r.fail(entry, fmt::format("array `{}` of shape [{}] does not fill its {} bytes", name, fmt::join(a.shape, ", "), range[1] - range[0]));
    type->widen(std::string_view(text).substr(data + static_cast<std::size_t>(range[0]), static_cast<std::size_t>(range[1] - range[0])), a);
    out[name] = std::move(a);
  }
  return out;
}

}  // namespace epsim
