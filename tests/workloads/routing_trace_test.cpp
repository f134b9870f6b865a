#include "workloads/import/routing_trace.h"

#include <gmock/gmock.h>

#include "tests/support/part_from_yaml.h"
#include "workloads/import/ours.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using testing::input_error;

std::shared_ptr<const SourceText> file_of(std::string bytes) { return std::make_shared<SourceText>(SourceText{"trace", std::move(bytes)}); }

/// Three tokens, two layers, two choices.
Recording sample() {
  RecordedChoices choices;
  choices.tokens = 3, choices.top_k = 2;
  for (int i = 0; i < 12; ++i) choices.experts.push_back(i * 7 % 300), choices.weights.push_back(static_cast<float>(i) / 3);
  Recording r;
  r.rows = 2, r.layers = {3, 5}, r.data = std::move(choices);
  return r;
}

void expect_same(const std::map<std::string, NpyArray>& a, const std::map<std::string, NpyArray>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, array] : a) {
    ASSERT_TRUE(b.contains(name)) << name;
    EXPECT_EQ(array.shape, b.at(name).shape);
    EXPECT_EQ(array.is_float, b.at(name).is_float);
    EXPECT_EQ(array.integers, b.at(name).integers);
    EXPECT_EQ(array.floats, b.at(name).floats);
  }
}

TEST(RoutingTrace, BothFormsReadBackEqual) {
  Recording whole = sample(), bare = sample();
  bare.layers.clear(), std::get<RecordedChoices>(bare.data).weights.clear();
  for (const Recording& r : {whole, bare}) {
    const auto npz = read_trace(file_of(to_trace(r))), protobuf = read_trace(file_of(to_protobuf_trace(r)));
    expect_same(npz, protobuf);
    const auto& choices = std::get<RecordedChoices>(r.data);
    EXPECT_EQ(protobuf.at("expert_ids").shape, (std::vector<std::int64_t>{3, 2, 2}));
    EXPECT_EQ(protobuf.at("expert_ids").integers, std::vector<std::int64_t>(choices.experts.begin(), choices.experts.end()));
    EXPECT_EQ(protobuf.contains("expert_weights"), !choices.weights.empty());
    EXPECT_EQ(protobuf.contains("layers"), !r.layers.empty());
    EXPECT_EQ(to_protobuf_trace(r), to_protobuf_trace(r));
  }
}

// The wire format is Protobuf's own, field by field: a file that other programs read.
TEST(RoutingTrace, IsWrittenAsProtobufSays) {
  RecordedChoices choices;
  choices.tokens = 1, choices.top_k = 1, choices.experts = {300}, choices.weights = {1};
  Recording r;
  r.rows = 1, r.layers = {4}, r.data = choices;
  // Tag (field << 3 | type), then length or value: the kind; rows 1; top_k 1; packed layers 4; packed ids 300 = 0xac 0x02; packed weights 1.0f.
  const std::string expected = std::string("\x0a\x13" "epsim routing trace") + "\x10\x01" "\x18\x01" "\x22\x01\x04" "\x2a\x02\xac\x02" + std::string("\x32\x04\0\0\x80\x3f", 6);
  EXPECT_EQ(to_protobuf_trace(r), expected);
}

// Messages one after another are one: lists are joined, and numbers are those said last.
TEST(RoutingTrace, PiecesJoin) {
  Recording first = sample(), rest = sample();
  rest.layers.clear();
  const auto arrays = read_trace(file_of(to_protobuf_trace(first) + to_protobuf_trace(rest)));
  EXPECT_EQ(arrays.at("expert_ids").shape, (std::vector<std::int64_t>{6, 2, 2}));
  EXPECT_EQ(arrays.at("layers").integers, (std::vector<std::int64_t>{3, 5}));
}

TEST(RoutingTrace, RefusesWhatIsDamaged) {
  const auto said = [](const std::string& bytes) { return input_error([&] { read_trace(file_of(bytes)); }); };
  const std::string good = to_protobuf_trace(sample());
  EXPECT_THAT(said(good.substr(0, good.size() - 3)), HasSubstr("ends early or is damaged"));
  Recording none = sample(), uneven = sample(), layers = sample(), weights = sample();
  none.rows = 0, none.layers.clear();
  EXPECT_THAT(said(to_protobuf_trace(none)), HasSubstr("0 layers"));
  std::get<RecordedChoices>(uneven.data).experts.pop_back();
  EXPECT_THAT(said(to_protobuf_trace(uneven)), HasSubstr("no whole number of tokens"));
  layers.layers = {1};
  EXPECT_THAT(said(to_protobuf_trace(layers)), HasSubstr("indices for 1"));
  std::get<RecordedChoices>(weights.data).weights.pop_back();
  EXPECT_THAT(said(to_protobuf_trace(weights)), HasSubstr("12 choices with 11 weights"));
  EXPECT_NE(said("neither"), "");
}

}  // namespace
}  // namespace epsim
