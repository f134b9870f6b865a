#include "base/npz.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <string_view>

#include "base/half.h"
#include "base/units.h"

namespace epsim {
namespace {

static_assert(std::endian::native == std::endian::little, "arrays are copied as they lie in memory");

constexpr std::uint64_t kMaxBytes = std::uint64_t{1} << 32;  // of all arrays of a file together, after widening
constexpr std::uint64_t kMaxRatio = 1032;                    // deflate cannot do better, so a larger claim is false
constexpr std::uint32_t kLocalHeader = 0x04034b50, kCentralHeader = 0x02014b50, kEndOfDirectory = 0x06054b50;
constexpr std::size_t kLocalSize = 30, kCentralSize = 46, kEndSize = 22;

/// A number of `Bytes` little-endian bytes; the caller has checked that they are there.
template <class T>
T load(std::string_view bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

template <class T>
void store(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

struct Member {
  std::string name;  // without ".npy"
  std::uint16_t method = 0;
  std::uint32_t crc = 0;
  std::uint64_t packed = 0, size = 0;
  std::string_view bytes;  // as stored in the file
};

/// The reader of one file: every refusal names the file, and the member where there is one.
class Reader {
 public:
  explicit Reader(std::shared_ptr<const SourceText> file) : file_(std::move(file)), text_(file_->text) {}

  std::map<std::string, NpyArray> arrays() {
    std::map<std::string, NpyArray> out;
    for (const Member& m : directory()) {
      member_ = m.name;
      if (!out.emplace(m.name, array(inflated(m))).second) fail("is there twice");
    }
    return out;
  }

  NpyArray alone() {
    member_ = ".npy";
    return array(file_->text);
  }

 private:
  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> message, Args&&... args) const {
    const std::string what = fmt::format(message, std::forward<Args>(args)...);
    throw InputError({file_, 0, 0}, member_.empty() ? "not a usable .npz: " + what : fmt::format("array `{}` {}", member_, what));
  }

  std::size_t end_of_directory() const {
    if (text_.starts_with("\x93NUMPY")) fail("it is a bare .npy array");
    if (text_.size() < kEndSize) fail("too short for a zip archive ({} bytes)", text_.size());
    const std::size_t last = text_.size() - kEndSize;
    const std::size_t first = last > 0xffff ? last - 0xffff : 0;  // a comment may follow
    for (std::size_t at = last + 1; at-- > first;)
      if (load<std::uint32_t>(text_, at) == kEndOfDirectory && at + kEndSize + load<std::uint16_t>(text_, at + 20) == text_.size()) return at;
    fail("no zip directory at its end (truncated?)");
  }

  std::vector<Member> directory() const {
    const std::size_t end = end_of_directory();
    const std::uint16_t count = load<std::uint16_t>(text_, end + 10);
    const std::uint64_t size = load<std::uint32_t>(text_, end + 12), begin = load<std::uint32_t>(text_, end + 16);
    if (count == 0xffff || begin == 0xffffffff) fail("zip64 archives are not supported");
    if (load<std::uint16_t>(text_, end + 4) != 0 || load<std::uint16_t>(text_, end + 8) != count) fail("split zip archives are not supported");
    if (begin + size != end) fail("its zip directory is inconsistent");
    std::vector<Member> members;
    std::size_t at = begin;
    for (int i = 0; i < count; ++i) {
      if (end - at < kCentralSize || load<std::uint32_t>(text_, at) != kCentralHeader) fail("its zip directory is broken at entry {}", i);
      const std::size_t name_size = load<std::uint16_t>(text_, at + 28);
      const std::size_t entry = kCentralSize + name_size + load<std::uint16_t>(text_, at + 30) + load<std::uint16_t>(text_, at + 32);
      if (end - at < entry) fail("its zip directory is broken at entry {}", i);
      members.push_back(member(at, name_size));
      at += entry;
    }
    if (at != end) fail("its zip directory is inconsistent");
    return members;
  }

  Member member(std::size_t at, std::size_t name_size) const {
    Member m;
    const std::string_view name = text_.substr(at + kCentralSize, name_size);
    if (!name.ends_with(".npy") || name.size() == 4) fail("member `{}` is not a .npy array", printable(name));
    m.name = printable(name.substr(0, name.size() - 4));
    if (load<std::uint16_t>(text_, at + 8) & 1) fail("member `{}` is encrypted", m.name);
    m.method = load<std::uint16_t>(text_, at + 10);
    m.crc = load<std::uint32_t>(text_, at + 16);
    m.packed = load<std::uint32_t>(text_, at + 20);
    m.size = load<std::uint32_t>(text_, at + 24);
    const std::uint64_t local = load<std::uint32_t>(text_, at + 42);
    if (m.packed == 0xffffffff || m.size == 0xffffffff || local == 0xffffffff) fail("member `{}` needs zip64, which is not supported", m.name);
    if (local + kLocalSize > text_.size() || load<std::uint32_t>(text_, local) != kLocalHeader) fail("member `{}` has no local header", m.name);
    // Sizes are taken from the directory: the local header may leave them open (streamed archives) or say 2^32-1 (NumPy forces zip64 there).
    const std::uint64_t data = local + kLocalSize + load<std::uint16_t>(text_, local + 26) + load<std::uint16_t>(text_, local + 28);
    if (data + m.packed > text_.size()) fail("member `{}` is truncated", m.name);
    m.bytes = text_.substr(data, m.packed);
    return m;
  }

  std::string inflated(const Member& m) {
    if (m.method != 0 && m.method != 8) fail("is packed by zip method {}, expected stored or deflated", m.method);
    if (m.method == 0 && m.packed != m.size) fail("has inconsistent sizes: {} stored, {} claimed", m.packed, m.size);
    if (m.size > kMaxRatio * (m.packed + 16)) fail("claims {} bytes, more than {} packed bytes can hold", m.size, m.packed);
    inflated_ += m.size;
    if (inflated_ > kMaxBytes) fail("brings the file over the limit of 4 GiB");
    std::string out = m.method == 0 ? std::string(m.bytes) : deflated(m);
    if (crc32_z(0, reinterpret_cast<const Bytef*>(out.data()), out.size()) != m.crc) fail("is damaged: its checksum does not fit");
    return out;
  }

  std::string deflated(const Member& m) const {
    std::string out(m.size, '\0');
    z_stream z{};
    if (inflateInit2(&z, -MAX_WBITS) != Z_OK) fail("could not be unpacked: no memory");
    z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(m.bytes.data()));
    z.avail_in = static_cast<uInt>(m.bytes.size());
    char none = 0;
    z.next_out = reinterpret_cast<Bytef*>(out.empty() ? &none : out.data());
    z.avail_out = static_cast<uInt>(out.size());
    const int status = inflate(&z, Z_FINISH);
    const bool whole = status == Z_STREAM_END && z.avail_out == 0 && z.avail_in == 0;
    inflateEnd(&z);
    if (!whole) fail("is damaged: it does not unpack to the {} bytes it claims", m.size);
    return out;
  }

  /// Names come from outside and go to messages: keep them short and readable.
  static std::string printable(std::string_view name) {
    std::string out(name.substr(0, 200));
    std::replace_if(
        out.begin(), out.end(), [](unsigned char c) { return c < 0x20 || c >= 0x7f; }, '?');
    return out;
  }

  struct Header {
    std::string type;
    bool fortran = false;
    std::vector<std::int64_t> shape;
    std::size_t data = 0;  // where the values begin
  };

  Header header(std::string_view npy) const {
    if (npy.size() < 12 || !npy.starts_with("\x93NUMPY")) fail("is not in NumPy's format");
    const int major = static_cast<unsigned char>(npy[6]);
    if (major < 1 || major > 3) fail("has NumPy format {}, expected 1 to 3", major);
    const std::size_t begin = major == 1 ? 10 : 12;
    const std::size_t size = major == 1 ? load<std::uint16_t>(npy, 8) : load<std::uint32_t>(npy, 8);
    if (size > npy.size() - begin) fail("ends inside its header");
    Header h;
    h.data = begin + size;
    parse(npy.substr(begin, size), h);
    return h;
  }

  /// The header is a Python dict literal: {'descr': '<i4', 'fortran_order': False, 'shape': (3, 4), }
  void parse(std::string_view s, Header& h) const {
    const auto skip = [&] { s.remove_prefix(std::min(s.find_first_not_of(" \t\r\n"), s.size())); };
    const auto take = [&](std::string_view word) {
      skip();
      const bool there = s.starts_with(word);
      if (there) s.remove_prefix(word.size());
      return there;
    };
    const auto expect = [&](std::string_view word) {
      if (!take(word)) fail("has a broken header: expected `{}`", word);
    };
    const auto quoted = [&] {
      skip();
      const char quote = s.empty() ? '\0' : s.front();
      const std::size_t close = quote == '\'' || quote == '"' ? s.find(quote, 1) : std::string_view::npos;
      if (close == std::string_view::npos) fail("has a broken header: expected a quoted text (structured types are not supported)");
      const std::string text(s.substr(1, close - 1));
      s.remove_prefix(close + 1);
      return text;
    };
    bool has_type = false, has_order = false, has_shape = false;
    expect("{");
    while (!take("}")) {
      const std::string key = quoted();
      expect(":");
      if (key == "descr" && !has_type) {
        h.type = quoted(), has_type = true;
      } else if (key == "fortran_order" && !has_order) {
        h.fortran = take("True"), has_order = true;
        if (!h.fortran) expect("False");
      } else if (key == "shape" && !has_shape) {
        has_shape = true;
        expect("(");
        while (!take(")")) {
          skip();
          const std::size_t digits = std::min(s.find_first_not_of("0123456789"), s.size());
          const auto length = digits <= 12 ? parse_integer(s.substr(0, digits)) : std::nullopt;
          if (!length || h.shape.size() == 32) fail("has a broken shape in its header");
          h.shape.push_back(*length);
          s.remove_prefix(digits);
          if (!take(",")) {
            expect(")");
            break;
          }
        }
      } else {
        fail("has an unexpected key `{}` in its header", printable(key));
      }
      if (!take(",")) {
        expect("}");
        break;
      }
    }
    skip();
    if (!s.empty() || !has_type || !has_order || !has_shape) fail("has an incomplete header");
  }

  NpyArray array(const std::string& npy) {
    const Header h = header(npy);
    if (h.type.size() == 3 && h.type[0] == '>' && h.type[2] != '1') fail("is big-endian (`{}`), expected little-endian", printable(h.type));
    const std::string_view type = h.type.size() == 3 ? std::string_view(h.type).substr(1) : std::string_view{};
    const std::string_view bytes = std::string_view(npy).substr(h.data);
    NpyArray a;
    a.shape = h.shape;
    a.is_float = type == "f2" || type == "f4" || type == "f8";
    if (type == "f2")
      widen<Half>(bytes, a, a.floats);
    else if (type == "f4")
      widen<float>(bytes, a, a.floats);
    else if (type == "f8")
      widen<double>(bytes, a, a.floats);
    else if (type == "b1" || type == "u1")
      widen<std::uint8_t>(bytes, a, a.integers);
    else if (type == "i1")
      widen<std::int8_t>(bytes, a, a.integers);
    else if (type == "i2")
      widen<std::int16_t>(bytes, a, a.integers);
    else if (type == "u2")
      widen<std::uint16_t>(bytes, a, a.integers);
    else if (type == "i4")
      widen<std::int32_t>(bytes, a, a.integers);
    else if (type == "u4")
      widen<std::uint32_t>(bytes, a, a.integers);
    else if (type == "i8")
      widen<std::int64_t>(bytes, a, a.integers);
    else if (type == "u8")
      widen<std::uint64_t>(bytes, a, a.integers);
    else
      fail("has type `{}`, expected integers or floats (b1, i1-i8, u1-u8, f2, f4, f8)", printable(h.type));
    if (type == "u8")
      for (std::int64_t v : a.integers)
        if (v < 0) fail("holds a number over 2^63 - 1");
    if (h.fortran) to_c_order(a);
    return a;
  }

  template <class Stored, class Wide>
  void widen(std::string_view bytes, const NpyArray& a, std::vector<Wide>& out) {
    std::uint64_t count = 1;
    for (std::int64_t length : a.shape) {  // no overflow: count stays below 2^33 and a length below 2^40
      if (length != 0 && count > kMaxBytes / static_cast<std::uint64_t>(length)) fail("has a shape too large for its {} bytes", bytes.size());
      count *= static_cast<std::uint64_t>(length);
    }
    if (count * sizeof(Stored) != bytes.size()) fail("should hold {} values of {} bytes but has {} bytes", count, sizeof(Stored), bytes.size());
    widened_ += count * sizeof(Wide);
    if (widened_ > kMaxBytes) fail("brings the file over the limit of 4 GiB");
    out.resize(count);
    for (std::uint64_t i = 0; i < count; ++i) out[i] = static_cast<Wide>(load<Stored>(bytes, i * sizeof(Stored)));
  }

  static void to_c_order(NpyArray& a) {
    const std::size_t n = a.shape.size();
    if (n < 2) return;
    const auto reorder = [&](auto& values) {
      if (values.empty()) return;
      auto in_c_order = values;
      std::vector<std::int64_t> index(n, 0);  // of the value at hand, first index running fastest
      std::vector<std::int64_t> stride(n, 1);
      for (std::size_t d = n - 1; d-- > 0;) stride[d] = stride[d + 1] * a.shape[d + 1];
      std::int64_t target = 0;
      for (const auto& value : values) {
        in_c_order[static_cast<std::size_t>(target)] = value;
        for (std::size_t d = 0; d < n; ++d) {
          target += stride[d];
          if (++index[d] < a.shape[d]) break;
          target -= stride[d] * a.shape[d];
          index[d] = 0;
        }
      }
      values = std::move(in_c_order);
    };
    reorder(a.integers);
    reorder(a.floats);
  }

  std::shared_ptr<const SourceText> file_;
  std::string_view text_;
  std::string member_;
  std::uint64_t inflated_ = 0, widened_ = 0;
};

}  // namespace

std::int64_t NpyArray::size() const {
  std::int64_t n = 1;
  for (std::int64_t length : shape) n *= length;
  return n;
}

std::map<std::string, NpyArray> read_npz(std::shared_ptr<const SourceText> file) { return Reader(std::move(file)).arrays(); }

NpyArray read_npy(std::shared_ptr<const SourceText> file) { return Reader(std::move(file)).alone(); }

void NpzWriter::add(const std::string& name, std::vector<std::int64_t> shape, std::span<const float> values) {
  add_raw(name, shape, "<f4", values.data(), values.size_bytes());
}
void NpzWriter::add(const std::string& name, std::vector<std::int64_t> shape, std::span<const double> values) {
  add_raw(name, shape, "<f8", values.data(), values.size_bytes());
}
void NpzWriter::add(const std::string& name, std::vector<std::int64_t> shape, std::span<const std::int64_t> values) {
  add_raw(name, shape, "<i8", values.data(), values.size_bytes());
}
void NpzWriter::add(const std::string& name, std::vector<std::int64_t> shape, std::span<const std::int32_t> values) {
  add_raw(name, shape, "<i4", values.data(), values.size_bytes());
}

void NpzWriter::add_raw(const std::string& name, const std::vector<std::int64_t>& shape, const char* type, const void* data, std::size_t bytes) {
  std::int64_t count = 1;
  std::string lengths;
  for (std::int64_t length : shape) count *= length, lengths += fmt::format("{},{}", length, shape.size() == 1 ? "" : " ");
  if (shape.size() > 1) lengths.resize(lengths.size() - 2);
  ensure(static_cast<std::size_t>(count) * static_cast<std::size_t>(type[2] - '0') == bytes, "an array's shape fits its values");
  std::string npy = fmt::format("\x93NUMPY\x01{}{}{}", '\0', '\0', '\0');
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", type, lengths);
  header.append(63 - (npy.size() + header.size()) % 64, ' ');  // NumPy aligns values to 64 bytes
  header += '\n';
  const auto size = static_cast<std::uint16_t>(header.size());
  std::memcpy(npy.data() + 8, &size, sizeof size);
  npy += header;
  if (bytes != 0) npy.append(static_cast<const char*>(data), bytes);
  members_.emplace_back(name + ".npy", std::move(npy));
}

std::string NpzWriter::bytes() const {
  constexpr std::uint16_t kVersion = 20, kTime = 0, kDate = 0x21;  // 1980-01-01, zip's first day
  std::string out, directory;
  const auto limit = [&] {
    if (out.size() + directory.size() + kEndSize >= static_cast<std::size_t>(kMostBytes)) throw InputError(Location{}, "the arrays do not fit in an .npz: over 4 GiB");
  };
  for (const auto& [name, npy] : members_) {
    const std::size_t local = out.size();
    const auto size = static_cast<std::uint32_t>(npy.size());
    std::string facts;  // common to both headers
    store<std::uint16_t>(facts, kVersion);
    store<std::uint16_t>(facts, 0);  // flags
    store<std::uint16_t>(facts, 0);  // stored
    store(facts, kTime);
    store(facts, kDate);
    store(facts, static_cast<std::uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(npy.data()), npy.size())));
    store(facts, size);
    store(facts, size);
    store(facts, static_cast<std::uint16_t>(name.size()));
    store<std::uint16_t>(facts, 0);  // no extra field
    store(out, kLocalHeader);
    out += facts + name + npy;
    store(directory, kCentralHeader);
    store(directory, kVersion);
    directory += facts;
    directory.append(10, '\0');  // no comment, first disk, no attributes
    store(directory, static_cast<std::uint32_t>(local));
    directory += name;
    limit();
  }
  const std::size_t begin = out.size();
  out += directory;
  store(out, kEndOfDirectory);
  store<std::uint32_t>(out, 0);
  store(out, static_cast<std::uint16_t>(members_.size()));
  store(out, static_cast<std::uint16_t>(members_.size()));
  store(out, static_cast<std::uint32_t>(directory.size()));
  store(out, static_cast<std::uint32_t>(begin));
  store<std::uint16_t>(out, 0);
  return out;
}

}  // namespace epsim
