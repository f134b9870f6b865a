#pragma once
#include <compare>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

namespace epsim {

/// A point in time or a duration in integer picoseconds, so that two runs agree to the last bit.
struct Time {
  std::int64_t ps = 0;
  friend constexpr auto operator<=>(Time, Time) = default;
  friend constexpr Time operator+(Time a, Time b) { return {a.ps + b.ps}; }
  friend constexpr Time operator-(Time a, Time b) { return {a.ps - b.ps}; }
  constexpr Time& operator+=(Time b) { ps += b.ps; return *this; }
  constexpr double seconds() const { return static_cast<double>(ps) * 1e-12; }
  static constexpr Time never() { return {std::numeric_limits<std::int64_t>::max()}; }
};

/// The first picosecond that is not before `seconds`; a duration of 100 days or more is `Time::never()`.
Time time_from_seconds(double seconds);

using Bytes = std::int64_t;  ///< a count of bytes
using Bandwidth = double;    ///< bytes per second, one direction

/// A positive fraction in lowest terms; capacity factors are kept this way because 1.1 is no double (policies: capacity).
struct Rational {
  std::int64_t num = 0, den = 1;
  friend constexpr bool operator==(Rational, Rational) = default;
  constexpr double value() const { return static_cast<double>(num) / static_cast<double>(den); }
};

/// Parsers of what a user types. Each takes a number and a unit and gives nothing for any other text: a bare number is no duration.
/// Durations: ps ns us ms s. Sizes: B kB MB GB TB (powers of 1000), KiB MiB GiB TiB. Rates: bps kbps Mbps Gbps Tbps (bits), B/s kB/s MB/s GB/s TB/s.
std::optional<Time> parse_time(std::string_view text);
std::optional<Bytes> parse_bytes(std::string_view text);
std::optional<Bandwidth> parse_bandwidth(std::string_view text);
/// "1.25", "5/4" or "2".
std::optional<Rational> parse_rational(std::string_view text);
std::optional<std::int64_t> parse_integer(std::string_view text);  ///< decimal digits with an optional sign; no octal, no hex
std::optional<double> parse_number(std::string_view text);         ///< finite decimal number

std::string format_number(double value);      ///< shortest decimal that reads back to the same double
std::string format_seconds(double seconds);   ///< for people: "1.23 ms"
std::string format_bytes(double bytes);       ///< for people: "14.3 MB" (powers of 1000)
std::string format_bandwidth(Bandwidth rate); ///< for people: "50 GB/s"
std::string format_rational(Rational r);      ///< "1.25" where the decimal is exact, else "5/3"

}  // namespace epsim
