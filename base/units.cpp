#include "base/units.h"

#include <array>
#include <charconv>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

namespace epsim {
namespace {

struct Unit {
  std::string_view name;
  double scale;
};

constexpr std::array kTimeUnits = {Unit{"ps", 1}, Unit{"ns", 1e3}, Unit{"us", 1e6}, Unit{"ms", 1e9}, Unit{"s", 1e12}};
constexpr std::array kByteUnits = {Unit{"B", 1},      Unit{"kB", 1e3},     Unit{"MB", 1e6},        Unit{"GB", 1e9},           Unit{"TB", 1e12},
                                   Unit{"KiB", 1024}, Unit{"MiB", 1 << 20}, Unit{"GiB", 1 << 30}, Unit{"TiB", 1099511627776.0}};
constexpr std::array kRateUnits = {Unit{"bps", 0.125},   Unit{"kbps", 125},  Unit{"Mbps", 125e3}, Unit{"Gbps", 125e6}, Unit{"Tbps", 125e9},
                                   Unit{"B/s", 1},       Unit{"kB/s", 1e3}, Unit{"MB/s", 1e6},  Unit{"GB/s", 1e9},  Unit{"TB/s", 1e12}};

std::string_view trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

/// The value of "NUMBER UNIT" in the base unit of the table; nothing where the number is negative or the unit is unknown.
template <std::size_t N>
std::optional<double> parse_quantity(std::string_view text, const std::array<Unit, N>& units) {
  text = trim(text);
  const std::size_t split = text.find_first_not_of("0123456789.+-eE");
  if (split == std::string_view::npos) return {};
  // "2e3B": the exponent belongs to the number, but the E of "EB" would not; no unit here begins with e or E.
  const auto number = parse_number(trim(text.substr(0, split)));
  if (!number || *number < 0) return {};
  for (const Unit& u : units)
    if (trim(text.substr(split)) == u.name) return *number * u.scale;
  return {};
}

std::string with_prefix(double value, std::string_view unit) {
  constexpr std::array<std::string_view, 5> prefixes = {"", "k", "M", "G", "T"};
  std::size_t i = 0;
  while (std::abs(value) >= 999.5 && i + 1 < prefixes.size()) value /= 1000, ++i;
  return fmt::format("{:.3g} {}{}", value, prefixes[i], unit);
}

}  // namespace

Time time_from_seconds(double seconds) {
  if (!(seconds < 8.64e6)) return Time::never();
  if (seconds <= 0) return {0};
  const double ps = seconds * 1e12;
  // A value that is a whole number of picoseconds up to rounding of the product stays that number.
  const double nearest = std::nearbyint(ps);
  if (std::abs(ps - nearest) <= ps * 4e-16) return {static_cast<std::int64_t>(nearest)};
  return {static_cast<std::int64_t>(std::ceil(ps))};
}

std::optional<std::int64_t> parse_integer(std::string_view text) {
  text = trim(text);
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  std::int64_t v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty()) return {};
  return v;
}

std::optional<double> parse_number(std::string_view text) {
  text = trim(text);
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  double v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty() || !std::isfinite(v)) return {};
  return v;
}

std::optional<Time> parse_time(std::string_view text) {
  const auto ps = parse_quantity(text, kTimeUnits);
  if (!ps || *ps > 8.64e18) return {};
  return Time{static_cast<std::int64_t>(std::llround(*ps))};
}

std::optional<Bytes> parse_bytes(std::string_view text) {
  const auto bytes = parse_quantity(text, kByteUnits);
  if (!bytes || *bytes > 9e18) return {};
  return static_cast<Bytes>(std::llround(*bytes));
}

std::optional<Bandwidth> parse_bandwidth(std::string_view text) { return parse_quantity(text, kRateUnits); }

std::optional<Rational> parse_rational(std::string_view text) {
  text = trim(text);
  Rational r;
  if (const auto slash = text.find('/'); slash != std::string_view::npos) {
    const auto num = parse_integer(text.substr(0, slash)), den = parse_integer(text.substr(slash + 1));
    if (!num || !den || *den <= 0) return {};
    r = {*num, *den};
  } else {
    const auto dot = text.find('.');
    std::string digits(text.substr(0, dot));
    if (dot != std::string_view::npos) {
      const auto fraction = text.substr(dot + 1);
      if (fraction.empty() || fraction.find_first_not_of("0123456789") != std::string_view::npos || fraction.size() > 12) return {};
      digits += fraction;
      for (std::size_t i = 0; i < fraction.size(); ++i) r.den *= 10;
    }
    const auto num = parse_integer(digits);
    if (!num) return {};
    r.num = *num;
  }
  if (r.num < 0 || r.num > 1'000'000'000'000 || r.den > 1'000'000'000'000) return {};
  const std::int64_t g = std::gcd(r.num, r.den);
  return Rational{r.num / g, r.den / g};
}

std::string format_number(double value) { return fmt::format("{}", value); }

std::string format_seconds(double s) {
  const double a = std::abs(s);
  if (a >= 0.9995) return fmt::format("{:.4g} s", s);
  if (a >= 0.9995e-3) return fmt::format("{:.4g} ms", s * 1e3);
  if (a >= 0.9995e-6) return fmt::format("{:.4g} us", s * 1e6);
  return a == 0 ? "0 s" : fmt::format("{:.4g} ns", s * 1e9);
}

std::string format_bytes(double bytes) { return with_prefix(bytes, "B"); }
std::string format_bandwidth(Bandwidth rate) { return with_prefix(rate, "B/s"); }

std::string format_rational(Rational r) {
  std::string decimal = format_number(r.value());
  const auto back = parse_rational(decimal);
  return back && *back == r ? decimal : fmt::format("{}/{}", r.num, r.den);
}

}  // namespace epsim
