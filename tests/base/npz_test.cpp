#include "base/npz.h"
#include "tests/support/test_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <cmath>
#include <filesystem>

namespace epsim {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::shared_ptr<const SourceText> file(std::string bytes) { return std::make_shared<SourceText>(SourceText{"a.npz", std::move(bytes)}); }

std::string refusal(const std::string& bytes) {
  try {
    read_npz(file(bytes));
  } catch (const InputError& e) {
    return e.what();
  }
  return "accepted";
}

/// A .npz with one deflated or stored member whose `.npy` bytes are given.
std::string zip_of(const std::string& npy, bool deflated, const std::string& name = "a.npy") {
  std::string packed = npy;
  if (deflated) {
    packed.resize(compressBound(npy.size()) + 64);
    z_stream z{};
    deflateInit2(&z, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
    z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(npy.data())), z.avail_in = static_cast<uInt>(npy.size());
    z.next_out = reinterpret_cast<Bytef*>(packed.data()), z.avail_out = static_cast<uInt>(packed.size());
    deflate(&z, Z_FINISH);
    packed.resize(z.total_out);
    deflateEnd(&z);
  }
  std::string out;
  const auto put = [&](std::uint64_t v, int bytes) {
    for (int i = 0; i < bytes; ++i) out += static_cast<char>(v >> (8 * i));
  };
  const auto facts = [&] {
    put(20, 2), put(0, 2), put(deflated ? 8 : 0, 2), put(0, 4);
    put(crc32(0, reinterpret_cast<const Bytef*>(npy.data()), static_cast<uInt>(npy.size())), 4);
    put(packed.size(), 4), put(npy.size(), 4), put(name.size(), 2), put(0, 2);
  };
  put(0x04034b50, 4), facts();
  out += name + packed;
  const std::size_t begin = out.size();
  put(0x02014b50, 4), put(20, 2), facts(), put(0, 10), put(0, 4);
  out += name;
  const std::size_t size = out.size() - begin;
  put(0x06054b50, 4), put(0, 4), put(1, 2), put(1, 2), put(size, 4), put(begin, 4), put(0, 2);
  return out;
}

std::string npy(const std::string& header, const std::string& data, int version = 1) {
  std::string out = "\x93NUMPY";
  out += static_cast<char>(version);
  out += '\0';
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) out += static_cast<char>(header.size() >> (8 * i));
  return out + header + data;
}

TEST(Npz, WhatIsWrittenReadsBack) {
  NpzWriter w;
  w.add("ints", {2, 3}, std::vector<std::int64_t>{1, -2, 3, 4, 5, std::int64_t{1} << 60});
  w.add("small", {2}, std::vector<std::int32_t>{-7, 7});
  w.add("floats", {1, 2, 1}, std::vector<float>{0.5F, -1.25F});
  w.add("doubles", {3}, std::vector<double>{0.1, 1e300, -0.0});
  w.add("nothing", {0, 4}, std::vector<double>{});
  w.add("scalar", {}, std::vector<double>{2.5});
  const auto arrays = read_npz(file(w.bytes()));
  ASSERT_EQ(arrays.size(), 6U);
  EXPECT_THAT(arrays.at("ints").shape, ElementsAre(2, 3));
  EXPECT_THAT(arrays.at("ints").integers, ElementsAre(1, -2, 3, 4, 5, std::int64_t{1} << 60));
  EXPECT_THAT(arrays.at("small").integers, ElementsAre(-7, 7));
  EXPECT_TRUE(arrays.at("floats").is_float);
  EXPECT_THAT(arrays.at("floats").shape, ElementsAre(1, 2, 1));
  EXPECT_THAT(arrays.at("floats").floats, ElementsAre(0.5, -1.25));
  EXPECT_THAT(arrays.at("doubles").floats, ElementsAre(0.1, 1e300, -0.0));
  EXPECT_EQ(arrays.at("nothing").size(), 0);
  EXPECT_TRUE(arrays.at("scalar").shape.empty());
  EXPECT_THAT(arrays.at("scalar").floats, ElementsAre(2.5));
}

// I5: same arrays, same bytes; and the bytes are those of the format: a fixed day, aligned values.
TEST(Npz, WritesTheSameBytesAlways) {
  NpzWriter w;
  w.add("a", {1}, std::vector<std::int32_t>{1});
  const std::string bytes = w.bytes();
  EXPECT_EQ(bytes, w.bytes());
  EXPECT_EQ(bytes.substr(10, 4), std::string("\0\0\x21\0", 4)) << "1980-01-01";
  EXPECT_EQ(bytes.substr(35, 10), std::string("\x93NUMPY\x01\0\x76\0", 10));
  EXPECT_EQ(bytes.substr(45, 58), "{'descr': '<i4', 'fortran_order': False, 'shape': (1,), } ");
}

TEST(Npz, ReadsDeflatedMembersOfAllTypesAndVersions) {
  const auto read = [](const std::string& header, const std::string& data, int version) {
    return read_npz(file(zip_of(npy(header, data, version), true))).at("a");
  };
  EXPECT_THAT(read("{'descr': '|b1', 'fortran_order': False, 'shape': (2,), }\n", std::string("\1\0", 2), 1).integers, ElementsAre(1, 0));
  EXPECT_THAT(read("{'descr': '|i1', 'fortran_order': False, 'shape': (2,)}", "\xff\x05", 2).integers, ElementsAre(-1, 5));
  EXPECT_THAT(read("{'descr': '|u1', 'fortran_order': False, 'shape': (1,)}", "\xff", 3).integers, ElementsAre(255));
  EXPECT_THAT(read("{\"shape\": (1,), 'fortran_order': False, 'descr': '<i2'}", "\xfe\xff", 1).integers, ElementsAre(-2));
  EXPECT_THAT(read("{'descr': '<u2', 'fortran_order': False, 'shape': (1,)}", "\xfe\xff", 1).integers, ElementsAre(65534));
  EXPECT_THAT(read("{'descr': '<u4', 'fortran_order': False, 'shape': (1,)}", "\xff\xff\xff\xff", 1).integers, ElementsAre(4294967295));
  // 1, -2, the largest and the smallest number of binary16.
  EXPECT_THAT(read("{'descr': '<f2', 'fortran_order': False, 'shape': (4,)}", std::string("\x00\x3c\x00\xc0\xff\x7b\x01\x00", 8), 1).floats, ElementsAre(1, -2, 65504, std::ldexp(1, -24)));
  const auto special = read("{'descr': '<f2', 'fortran_order': False, 'shape': (2,)}", std::string("\x00\xfc\x01\x7c", 4), 1).floats;
  EXPECT_EQ(special[0], -INFINITY);
  EXPECT_TRUE(std::isnan(special[1]));
}

TEST(Npz, FortranOrderIsTurned) {
  const std::string header = "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }";
  const NpyArray a = read_npz(file(zip_of(npy(header, {0, 3, 1, 4, 2, 5}), false))).at("a");
  EXPECT_THAT(a.shape, ElementsAre(2, 3));
  EXPECT_THAT(a.integers, ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(Npz, RefusalsNameFileAndMember) {
  NpzWriter w;
  w.add("expert_ids", {4}, std::vector<std::int64_t>{1, 2, 3, 4});
  const std::string good = w.bytes();
  EXPECT_THAT(refusal(""), HasSubstr("a.npz: error: not a usable .npz: too short"));
  EXPECT_THAT(refusal(good.substr(0, good.size() - 30)), HasSubstr("truncated"));
  std::string flipped = good;
  flipped[200] ^= 1;
  EXPECT_THAT(refusal(flipped), HasSubstr("array `expert_ids` is damaged"));
  const std::string h = "{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }";
  EXPECT_THAT(refusal(zip_of(npy(h, "12345678"), true)), HasSubstr("array `a` should hold 3 values of 4 bytes but has 8 bytes"));
  EXPECT_THAT(refusal(zip_of(npy("{'descr': '>i4', 'fortran_order': False, 'shape': (1,)}", "1234"), true)), HasSubstr("big-endian"));
  EXPECT_THAT(refusal(zip_of(npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}", "12345678"), true)), HasSubstr("has type `<c8`"));
  EXPECT_THAT(refusal(zip_of(npy("{'descr': '<i4', 'fortran_order': False, 'shape': (999999999999, 999999999999)}", ""), true)), HasSubstr("shape too large"));
  EXPECT_THAT(refusal(zip_of(npy("{'descr': '<i4', 'shape': (1,)}", "1234"), true)), HasSubstr("incomplete header"));
  EXPECT_THAT(refusal(zip_of(npy(h, "1234567890ab", 9), true)), HasSubstr("NumPy format 9"));
  EXPECT_THAT(refusal(zip_of("hello", true)), HasSubstr("not in NumPy's format"));
  EXPECT_THAT(refusal(zip_of("hello", true, "readme.txt")), HasSubstr("`readme.txt` is not a .npy"));
  EXPECT_THAT(refusal(zip_of(npy("{'descr': '<u8', 'fortran_order': False, 'shape': (1,)}", std::string(8, '\xff')), true)), HasSubstr("2^63"));
}

TEST(Npz, ABombIsRefusedBeforeMemoryIsSpent) {
  std::string bytes = zip_of("hello", true);
  const std::size_t central = bytes.find("PK\x01\x02");
  bytes[central + 27] = '\x7f';  // claims about 2 GiB
  EXPECT_THAT(refusal(bytes), HasSubstr("more than"));
}

TEST(Npz, EveryCutIsRefused) {
  NpzWriter w;
  w.add("a", {4}, std::vector<std::int64_t>{1, 2, 3, 4});
  const std::string good = w.bytes();
  for (std::size_t size = 0; size < good.size(); ++size) EXPECT_NE(refusal(good.substr(0, size)), "accepted") << size;
}

TEST(Npz, ReadsTracesThatNumPyWrote) {
  const std::string path = test_data() + "/traces/gpt-oss-20b-facts.npz";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  const auto arrays = read_npz(read_text(path));
  EXPECT_EQ(arrays.at("expert_ids").shape.size(), 3U);
  EXPECT_EQ(arrays.at("expert_ids").shape[1], 24);
  EXPECT_EQ(arrays.at("expert_ids").shape[2], 4);
  EXPECT_TRUE(arrays.at("expert_weights").is_float);
}

}  // namespace
}  // namespace epsim
