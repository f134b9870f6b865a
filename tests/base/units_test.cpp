#include "base/units.h"

#include <gtest/gtest.h>

namespace epsim {
namespace {

TEST(Units, TimesNeedAUnit) {
  EXPECT_EQ(parse_time("2us"), Time{2'000'000});
  EXPECT_EQ(parse_time(" 1.5 ns "), Time{1500});
  EXPECT_EQ(parse_time("1e-3s"), Time{1'000'000'000});
  EXPECT_EQ(parse_time("0ps"), Time{0});
  for (const char* bad : {"", "2", "us", "-1us", "2 usec", "2µs", "1e99s", "nan s", "2us2us"}) EXPECT_FALSE(parse_time(bad)) << bad;
}

TEST(Units, SizesKnowPowersOf1000And1024) {
  EXPECT_EQ(parse_bytes("16B"), 16);
  EXPECT_EQ(parse_bytes("1kB"), 1000);
  EXPECT_EQ(parse_bytes("1KiB"), 1024);
  EXPECT_EQ(parse_bytes("80GB"), 80'000'000'000);
  EXPECT_EQ(parse_bytes("1.5MiB"), 1'572'864);
  for (const char* bad : {"", "16", "1KB", "1 gb", "-1B", "1e30TB"}) EXPECT_FALSE(parse_bytes(bad)) << bad;
}

TEST(Units, RatesKnowBitsAndBytes) {
  EXPECT_EQ(parse_bandwidth("400Gbps"), 50e9);
  EXPECT_EQ(parse_bandwidth("50GB/s"), 50e9);
  EXPECT_EQ(parse_bandwidth("8bps"), 1);
  EXPECT_EQ(parse_bandwidth("2e3B/s"), 2000);
  for (const char* bad : {"", "50", "50GB", "50 Gb/s", "-1GB/s", "inf GB/s"}) EXPECT_FALSE(parse_bandwidth(bad)) << bad;
}

TEST(Units, FractionsAreExact) {
  EXPECT_EQ(parse_rational("1.25"), (Rational{5, 4}));
  EXPECT_EQ(parse_rational("1.1"), (Rational{11, 10}));
  EXPECT_EQ(parse_rational("10/4"), (Rational{5, 2}));
  EXPECT_EQ(parse_rational("2"), (Rational{2, 1}));
  EXPECT_EQ(parse_rational("0"), (Rational{0, 1}));
  EXPECT_EQ(format_rational({5, 4}), "1.25");
  EXPECT_EQ(format_rational({5, 3}), "5/3");
  for (const char* bad : {"", "1.", "1/0", "1/-2", "-1", "1e2", "0.0000000000001", "9999999999999", "1.2.3", "/"}) EXPECT_FALSE(parse_rational(bad)) << bad;
}

TEST(Units, NumbersAreDecimal) {
  EXPECT_EQ(parse_integer("+42"), 42);
  EXPECT_EQ(parse_integer("-7"), -7);
  EXPECT_EQ(parse_integer("010"), 10);
  for (const char* bad : {"", "+", "0x10", "1.0", "9223372036854775808", "4 2"}) EXPECT_FALSE(parse_integer(bad)) << bad;
  EXPECT_EQ(parse_number("1e3"), 1000);
  for (const char* bad : {"", "inf", "nan", "1e999", "1,5"}) EXPECT_FALSE(parse_number(bad)) << bad;
}

TEST(Units, SecondsBecomeTheFirstPicosecondThatIsNotBefore) {
  EXPECT_EQ(time_from_seconds(0).ps, 0);
  EXPECT_EQ(time_from_seconds(-1).ps, 0);
  EXPECT_EQ(time_from_seconds(1.35e-6).ps, 1'350'000);
  EXPECT_EQ(time_from_seconds(0.1e-12).ps, 1);
  EXPECT_EQ(time_from_seconds(1.5e-12).ps, 2);
  EXPECT_EQ(time_from_seconds(1e9), Time::never());
  EXPECT_EQ(time_from_seconds(std::numeric_limits<double>::quiet_NaN()), Time::never());
  for (std::int64_t ps = 1; ps < 4'000'000'000'000'000; ps = ps * 7 + 3) EXPECT_EQ(time_from_seconds(Time{ps}.seconds()).ps, ps);
}

TEST(Units, PeopleReadThreeOrFourDigits) {
  EXPECT_EQ(format_seconds(1.23e-3), "1.23 ms");
  EXPECT_EQ(format_seconds(0), "0 s");
  EXPECT_EQ(format_seconds(2), "2 s");
  EXPECT_EQ(format_seconds(0.99996e-3), "1 ms");
  EXPECT_EQ(format_bytes(14.3e6), "14.3 MB");
  EXPECT_EQ(format_bytes(999.9), "1 kB");
  EXPECT_EQ(format_bandwidth(50e9), "50 GB/s");
  EXPECT_EQ(format_number(0.1), "0.1");
}

}  // namespace
}  // namespace epsim
