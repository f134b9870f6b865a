#include "workloads/source.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "base/npz.h"
#include "workloads/import/load_dump.h"

namespace epsim {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

SourceContext context(int experts = 8, int top_k = 2, int ranks = 4) {
  SourceContext c;
  c.experts = experts, c.top_k = top_k, c.ranks = ranks, c.hidden = 16, c.seed = 7;
  c.moe_layers = {1, 3, 5};
  c.layers = {1, 3, 5};
  return c;
}

Source make(const std::string& yaml, const SourceContext& c, Diagnostics& problems) {
  return builtin_sources().make(parse_yaml(std::make_shared<SourceText>(SourceText{"exp.yaml", yaml})), problems, &c);
}

Source good(const std::string& yaml, const SourceContext& c = context()) {
  Diagnostics problems;
  Source s = make(yaml, c, problems);
  problems.check();
  return s;
}

std::string refusal(const std::string& yaml, const SourceContext& c = context()) {
  Diagnostics problems;
  make(yaml, c, problems);
  try {
    problems.check();
  } catch (const InputError& e) {
    return e.what();
  }
  return "accepted";
}

/// A file in the test's own folder, removed at the end.
class File {
 public:
  File(const std::string& name, const std::string& bytes) : path_((std::filesystem::path(testing::TempDir()) / ("epsim_source_" + name)).string()) {
    std::ofstream(path_, std::ios::binary) << bytes;
  }
  ~File() { std::filesystem::remove(path_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string trace_bytes(std::vector<std::int64_t> shape, const std::vector<std::int64_t>& ids, const std::vector<float>& weights = {}) {
  NpzWriter w;
  w.add("expert_ids", shape, ids);
  if (!weights.empty()) w.add("expert_weights", shape, weights);
  return w.bytes();
}

/// Row by row, in the source's form.
std::vector<float> scores_of(const Source& s, int layer, std::int64_t first, std::int64_t count, int experts) {
  std::vector<float> blocks(score_count(count, experts)), rows;
  s.scores(layer, first, count, blocks);
  for (std::int64_t i = 0; i < count * experts; ++i) rows.push_back(blocks[score_index(i / experts, i % experts, experts)]);
  return rows;
}

std::vector<std::int64_t> first_choices(const Source& s, int layer, int experts) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(experts));
  const std::vector<float> logits = scores_of(s, layer, 0, s.tokens(), experts);
  for (auto row = logits.begin(); row != logits.end(); row += experts) ++counts[static_cast<std::size_t>(std::max_element(row, row + experts) - row)];
  return counts;
}

TEST(Source, EveryPartDescribesItself) {
  const SourceCatalog sources = builtin_sources();
  EXPECT_THAT(sources.names(), testing::UnorderedElementsAre("burst", "drift", "gate", "imbalance", "loads", "lognormal", "rotating", "topics", "trace", "uniform", "zipf"));
  for (const auto& entry : sources.entries()) {
    Params listing;
    EXPECT_FALSE(entry.make(listing, nullptr).summary.empty()) << entry.name;
    EXPECT_GE(listing.docs().size(), 2U) << entry.name;
  }
}

TEST(Source, TokensLiveInContiguousBlocks) {
  EXPECT_THAT(token_blocks(10, 4), ElementsAre(0, 3, 6, 8, 10));
  EXPECT_THAT(token_blocks(3, 8), ElementsAre(0, 1, 2, 3, 3, 3, 3, 3, 3)) << "ranks without tokens";
  EXPECT_THAT(good("uniform: {tokens_per_rank: 5}").first_token, ElementsAre(0, 5, 10, 15, 20));
  EXPECT_THAT(good("uniform: {tokens: 2}").first_token, ElementsAre(0, 1, 2, 2, 2));
  EXPECT_THAT(refusal("uniform"), HasSubstr("give `tokens_per_rank` or `tokens`"));
  EXPECT_THAT(refusal("uniform: {tokens: 4, tokens_per_rank: 1}"), HasSubstr("exp.yaml:1:19: error: give `tokens` or `tokens_per_rank`, not both"));
  EXPECT_THAT(refusal("uniform: {tokens: 0}"), HasSubstr("`tokens` must be an integer"));
  EXPECT_THAT(refusal("uniform: {token: 4}"), HasSubstr("did you mean `tokens`?"));
}

TEST(Source, ZipfPopularityFollowsItsLawInAnOrderOfTheSeed) {
  SourceContext c = context();
  const Source s = good("zipf: {tokens: 100000, exponent: 1}", c);
  std::vector<std::int64_t> counts = first_choices(s, 1, 8);
  const std::vector<std::int64_t> other_layer = first_choices(s, 3, 8);
  c.seed = 8;
  const std::vector<std::int64_t> other_seed = first_choices(good("zipf: {tokens: 100000, exponent: 1}", c), 1, 8);
  const auto hottest = [](const std::vector<std::int64_t>& v) { return std::max_element(v.begin(), v.end()) - v.begin(); };
  EXPECT_TRUE(hottest(counts) != hottest(other_layer) || hottest(counts) != hottest(other_seed));
  std::sort(counts.rbegin(), counts.rend());
  double harmonic = 0;
  for (int r = 1; r <= 8; ++r) harmonic += 1.0 / r;
  for (int r = 1; r <= 8; ++r) {
    const double p = 1 / harmonic / r;
    EXPECT_NEAR(static_cast<double>(counts[static_cast<std::size_t>(r - 1)]), 1e5 * p, 4.5 * std::sqrt(1e5 * p * (1 - p))) << r;
  }
}

TEST(Source, LognormalPopularityHasItsSpread) {
  const SourceContext c = context(256, 8);
  const std::vector<std::int64_t> counts = first_choices(good("lognormal: {tokens: 200000, sigma: 0.6}", c), 3, 256);
  double mean = 0, square = 0;
  for (std::int64_t n : counts) mean += std::log(static_cast<double>(n)) / 256;
  for (std::int64_t n : counts) square += std::pow(std::log(static_cast<double>(n)) - mean, 2) / 255;
  EXPECT_NEAR(std::sqrt(square), 0.6, 0.1);
  const std::vector<std::int64_t> even = first_choices(good("uniform: {tokens: 200000}", c), 3, 256);
  EXPECT_LT(*std::max_element(even.begin(), even.end()), 781 + 5 * 28);
}

TEST(Source, GateLogitsAreTokenVectorsTimesTheGate) {
  const SourceContext c = context();
  const Source s = good("gate: {tokens: 20000, skew: 1}", c);
  std::vector<float> gate(16 * 8), x(16);
  s.gate(3, gate);
  const std::vector<float> logits = scores_of(s, 3, 5, 40, 8);
  for (std::int64_t t = 0; t < 40; ++t) {
    token_vector(c.seed, 5 + t, x);
    EXPECT_EQ(x[0], 1.0F);
    for (std::size_t e = 0; e < 8; ++e) {
      double sum = 0;
      for (std::size_t i = 0; i < 16; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(gate[i * 8 + e]);
      EXPECT_EQ(logits[static_cast<std::size_t>(t) * 8 + e], static_cast<float>(sum));
    }
  }
  const std::vector<std::int64_t> skewed = first_choices(s, 3, 8), even = first_choices(good("gate: {tokens: 20000}", c), 3, 8);
  EXPECT_GT(*std::max_element(skewed.begin(), skewed.end()), 2 * *std::max_element(even.begin(), even.end()));
}

TEST(Source, TraceGivesWhatWasRecorded) {
  // [3 tokens, 3 layers, 2]
  const std::vector<std::int64_t> ids = {0, 1, 2, 3, 4, 5, 6, 7, 0, 2, 1, 3, 5, 4, 3, 2, 1, 0};
  std::vector<float> weights(18);
  std::iota(weights.begin(), weights.end(), 1.0F);
  const File file("trace.npz", trace_bytes({3, 3, 2}, ids, weights));
  const Source s = good("trace: {file: " + file.path() + "}");
  EXPECT_THAT(s.first_token, ElementsAre(0, 1, 2, 3, 3)) << "all tokens, over more ranks";
  EXPECT_TRUE(s.has_weights);
  std::vector<std::uint16_t> experts(4);
  std::vector<float> w(4);
  s.choices(3, 1, 2, experts, w);
  EXPECT_THAT(experts, ElementsAre(0, 2, 3, 2)) << "layer 3 is the second MoE layer, so the trace's second";
  EXPECT_THAT(w, ElementsAre(9, 10, 15, 16));
  const Source again = good("trace: {file: " + file.path() + ", tokens: 5, repeat: true}");
  again.choices(5, 3, 2, experts, w);
  EXPECT_THAT(experts, ElementsAre(4, 5, 1, 3)) << "the first two tokens again";
  EXPECT_THAT(refusal("trace: {file: " + file.path() + ", tokens: 5}"),
              AllOf(HasSubstr("5 tokens are asked for"), HasSubstr("has 3"), HasSubstr("repeat: true")));
}

TEST(Source, TraceIsReadOnceForAllWhoHoldIt) {
  const std::string bytes = trace_bytes({1, 3, 2}, {0, 1, 2, 3, 4, 5}), others = trace_bytes({1, 3, 2}, {7, 6, 5, 4, 3, 2});
  ASSERT_EQ(bytes.size(), others.size());
  const File file("shared.npz", bytes);
  const auto written = std::filesystem::last_write_time(file.path());
  const auto first_of = [](const Source& s) {
    std::vector<std::uint16_t> experts(2);
    std::vector<float> weights(2);
    s.choices(1, 0, 1, experts, weights);
    return experts[0];
  };
  const auto again = [&] { return first_of(good("trace: {file: " + file.path() + "}")); };
  {
    const Source holds = good("trace: {file: " + file.path() + "}");
    std::ofstream(file.path(), std::ios::binary) << others;
    std::filesystem::last_write_time(file.path(), written);  // as if nothing had happened
    EXPECT_EQ(again(), 0) << "what is held";
    EXPECT_EQ(first_of(good("trace: {file: " + file.path() + "}", context(16))), 7) << "another model has its own";
    std::filesystem::last_write_time(file.path(), written + std::chrono::seconds(1));
    EXPECT_EQ(again(), 7) << "the file has changed";
  }
  std::filesystem::last_write_time(file.path(), written);
  EXPECT_EQ(again(), 7) << "nobody holds it any more";
}

TEST(Source, TraceRefusalsNameArrayAndIndex) {
  const std::vector<std::int64_t> ids = {0, 1, 2, 3, 4, 5};
  const auto said = [](const std::string& bytes, const std::string& more = "") {
    const File file("bad.npz", bytes);
    return refusal("trace: {file: " + file.path() + more + "}");
  };
  EXPECT_THAT(said(trace_bytes({1, 3, 2}, {0, 1, 2, 3, 4, 8})), HasSubstr("expert_ids[0, 2, 1] is 8, expected 0 to 7"));
  EXPECT_THAT(said(trace_bytes({1, 3, 2}, {0, 1, -1, 3, 4, 5})), HasSubstr("expert_ids[0, 1, 0] is -1"));
  EXPECT_THAT(said(trace_bytes({1, 3, 2}, {0, 1, 2, 2, 4, 5})), HasSubstr("expert_ids[0, 1, 1] is 2 again"));
  EXPECT_THAT(said(trace_bytes({2, 1, 3}, ids)), HasSubstr("expert_ids has 3 choices a token, the model's top_k is 2"));
  EXPECT_THAT(said(trace_bytes({3, 2}, ids)), HasSubstr("expert_ids has shape [3, 2], expected [tokens, layers, top_k]"));
  EXPECT_THAT(said(trace_bytes({3, 1, 2}, ids)), HasSubstr("has 1 layers, but layer 3 is number 2 of the model's 3 MoE layers"));
  EXPECT_EQ(said(trace_bytes({3, 1, 2}, ids), ", repeat: true"), "accepted");
  EXPECT_THAT(said(trace_bytes({1, 4, 2}, {0, 1, 2, 3, 4, 5, 6, 7})), HasSubstr("has 4 layers, the model has 3 MoE layers"));
  EXPECT_THAT(said(trace_bytes({1, 3, 2}, ids, {1, 2, 3, 4, 5, NAN})), HasSubstr("expert_weights[0, 2, 1] is not a finite number"));
  EXPECT_THAT(said(trace_bytes({1, 3, 2}, ids).substr(0, 100)), HasSubstr("truncated"));
  NpzWriter odd;
  odd.add("expert_ids", {1, 3, 2}, ids);
  odd.add("expert_weights", {3, 2}, std::vector<float>(6, 1.0F));
  EXPECT_THAT(said(odd.bytes()), HasSubstr("expert_weights has shape [3, 2], expert_ids [1, 3, 2]"));
  EXPECT_THAT(refusal("trace: {file: nowhere.npz}"), HasSubstr("exp.yaml:1:15: error: nowhere.npz: no such file"));
}

TEST(Source, LoadsAreMetInProportion) {
  const File file("loads.json",
                  R"({"layers": [1, 3, 5], "logical_count": [[10, 20, 30, 40, 50, 60, 70, 120], [1, 1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 9, 1, 1, 1, 0]]})");
  const Source s = good("loads: {file: " + file.path() + ", tokens: 50000}");
  EXPECT_FALSE(s.has_weights);
  std::vector<std::uint16_t> experts(100'000);
  std::vector<float> w(100'000);
  const auto counts = [&](int layer) {
    s.choices(layer, 0, 50'000, experts, w);
    std::vector<double> n(8);
    for (std::size_t i = 0; i < experts.size(); i += 2) {
      EXPECT_NE(experts[i], experts[i + 1]);
      ++n[experts[i]], ++n[experts[i + 1]];
    }
    return n;
  };
  const std::vector<double> first = counts(1);
  const std::vector<double> share = {10, 20, 30, 40, 50, 60, 70, 120};
  for (std::size_t e = 0; e < 8; ++e) {
    const double p = share[e] / 200;  // two of 400
    EXPECT_NEAR(first[e], 50'000 * p, 4.5 * std::sqrt(50'000 * p * (1 - p))) << e;
  }
  const std::vector<double> third = counts(5);  // 9 of 12 asks for 1.5 choices a token: one is had, the rest is shared in proportion
  EXPECT_EQ(third[3], 50'000);
  EXPECT_EQ(third[0] + third[1] + third[2] + third[7], 0);
  for (std::size_t e = 4; e < 7; ++e) EXPECT_NEAR(third[e], 50'000 / 3.0, 4.5 * std::sqrt(50'000 * 2 / 9.0));
}

TEST(Source, TraceAndLoadsGoOnFromBatchToBatch) {
  SourceContext c = context(8, 1, 2);
  c.moe_layers = c.layers = {1};
  c.batches = 3;
  const File trace("batches.npz", trace_bytes({7, 1, 1}, {0, 1, 2, 3, 4, 5, 6}));
  const Source s = good("trace: {file: " + trace.path() + "}", c);
  EXPECT_EQ(s.tokens(), 2) << "7 tokens are 3 batches of 2";
  std::vector<std::uint16_t> experts(2);
  std::vector<float> w(2);
  s.choices(1, 2 * s.tokens(), 2, experts, w);
  EXPECT_THAT(experts, ElementsAre(4, 5));
  EXPECT_THAT(refusal("trace: {file: " + trace.path() + ", tokens: 3}", c), AllOf(HasSubstr("3 tokens in each of 3 batches are asked for"), HasSubstr("has 7")));
  EXPECT_EQ(refusal("trace: {file: " + trace.path() + ", tokens: 3, repeat: true}", c), "accepted");

  // Each recorded token stands for two: 14 tokens are 3 batches of 4.
  const Source twice = good("trace: {file: " + trace.path() + ", times: 2}", c);
  EXPECT_EQ(twice.tokens(), 4);
  experts.resize(4), w.resize(4);
  twice.choices(1, 2 * twice.tokens(), 4, experts, w);
  EXPECT_THAT(experts, ElementsAre(4, 4, 5, 5));
  EXPECT_THAT(refusal("trace: {file: " + trace.path() + ", tokens: 5, times: 2}", c), AllOf(HasSubstr("5 tokens in each of 3 batches are asked for"), HasSubstr("has 7 x 2;")));
  for (const char* times : {"0", "-1", "1.5", "many"}) EXPECT_THAT(refusal("trace: {file: " + trace.path() + ", times: " + times + "}", c), HasSubstr("`times` must be an integer from 1 to")) << times;
  c.batches = 8;
  EXPECT_THAT(refusal("trace: {file: " + trace.path() + "}", c), HasSubstr("has 7 tokens, too few for 8 batches"));
  EXPECT_EQ(refusal("trace: {file: " + trace.path() + ", times: 2}", c), "accepted");
  c.batches = 15;
  EXPECT_THAT(refusal("trace: {file: " + trace.path() + ", times: 2}", c), HasSubstr("has 7 x 2 tokens, too few for 15 batches"));
  c.batches = 8;

  const File counts("batches.json", R"({"logical_count": [[1, 1, 1, 1, 1, 1, 1, 1]]})");
  const Source l = good("loads: {file: " + counts.path() + ", tokens: 64}", c);
  std::vector<std::uint16_t> first(64), second(64);
  std::vector<float> weights(64);
  l.choices(1, 0, 64, first, weights), l.choices(1, 64, 64, second, weights);
  EXPECT_NE(first, second) << "tokens of another batch draw for themselves";
}

TEST(Source, TraceFindsItsLayersByTheirNumbers) {
  SourceContext c = context(8, 1, 1);
  c.layers = {5};
  const auto bytes = [](std::vector<std::int64_t> layers) {
    NpzWriter w;
    w.add("expert_ids", {1, 2, 1}, std::vector<std::int64_t>{6, 7});
    w.add("layers", {static_cast<std::int64_t>(layers.size())}, layers);
    return w.bytes();
  };
  const File file("named.npz", bytes({5, 1}));
  std::vector<std::uint16_t> experts(1);
  std::vector<float> w(1);
  good("trace: {file: " + file.path() + "}", c).choices(5, 0, 1, experts, w);
  EXPECT_THAT(experts, ElementsAre(6));
  c.layers = {3};
  EXPECT_THAT(refusal("trace: {file: " + file.path() + "}", c), HasSubstr("has no layer 3"));
  EXPECT_EQ(refusal("trace: {file: " + file.path() + ", repeat: true}", c), "accepted");
  const File odd("odd.npz", bytes({5, 1, 3})), twice("twice.npz", bytes({5, 5}));
  EXPECT_THAT(refusal("trace: {file: " + odd.path() + "}", c), HasSubstr("layers has shape [3], expected a whole number for each of the 2 layers"));
  EXPECT_THAT(refusal("trace: {file: " + twice.path() + "}", c), HasSubstr("layers holds 5, expected different layer indices"));
}

// I5: what a token wants does not depend on the tokens that are asked for with it.
TEST(Source, ATokenWantsTheSameHoweverTokensAreAskedFor) {
  constexpr std::int64_t kTokens = 50;
  const File counts("pieces.json", R"({"logical_count": [[1, 2, 3, 4, 5, 6, 7, 12], [1, 1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 9, 1, 1, 1, 0]]})");
  std::vector<std::int64_t> ids;
  for (std::int64_t i = 0; i < kTokens * 3; ++i) ids.insert(ids.end(), {i % 8, (i + 1 + i / 8 % 7) % 8});
  const File trace("pieces.npz", trace_bytes({kTokens, 3, 2}, ids));
  for (const std::string& yaml : {std::string("uniform: {tokens: 50}"), std::string("zipf: {tokens: 50}"), std::string("lognormal: {tokens: 50, sigma: 1}"),
                                  std::string("gate: {tokens: 50, skew: 1}"), "loads: {tokens: 50, file: " + counts.path() + "}", "trace: {file: " + trace.path() + "}"}) {
    const Source s = good(yaml);
    const bool scores = s.yields == Source::Yields::scores;
    const auto wish = [&](std::int64_t first, std::int64_t count) {
      std::vector<float> logits = scores ? scores_of(s, 3, first, count, 8) : std::vector<float>{};
      std::vector<float> weights(static_cast<std::size_t>(count * 2));
      std::vector<std::uint16_t> experts(weights.size());
      if (!scores) s.choices(3, first, count, experts, weights);
      logits.insert(logits.end(), experts.begin(), experts.end());
      return logits;
    };
    const std::vector<float> whole = wish(0, kTokens);
    const std::size_t of_token = scores ? 8 : 2;
    for (const auto& [first, count] : std::vector<std::pair<std::int64_t, std::int64_t>>{{0, 1}, {1, 1}, {7, 16}, {13, 37}, {49, 1}}) {
      const std::vector<float> piece = wish(first, count);
      for (std::size_t i = 0; i < static_cast<std::size_t>(count) * of_token; ++i)
        ASSERT_EQ(piece[i], whole[static_cast<std::size_t>(first) * of_token + i]) << yaml << ": value " << i << " of " << count << " tokens from " << first;
    }
  }
}

TEST(Source, LoadRefusalsPointIntoTheFile) {
  const auto said = [](const std::string& json) {
    const File file("bad.json", json);
    return refusal("loads: {file: " + file.path() + ", tokens: 5}");
  };
  EXPECT_THAT(said("{\"logical_count\": [[1, 2],\n [3, -4]]}"), HasSubstr("bad.json:2:6: a count must be a whole number from 0 to 2^53, got -4"));
  EXPECT_THAT(said("{\"logical_count\": [[1, 2], [3]]}"), HasSubstr("bad.json:1:28: this layer of `logical_count` has 1 experts, the first has 2"));
  EXPECT_THAT(said("{\"logical_count\": 3}"), HasSubstr("bad.json:1:19: `logical_count` must be [[layer][expert]]"));
  EXPECT_THAT(said("{}"), HasSubstr("has no key `logical_count` [[layer][expert]]"));
  EXPECT_THAT(said("{\"logical_count\": [[1, 2]]"), HasSubstr("is no JSON"));
  EXPECT_THAT(said("{\"logical_count\": [[1, 2], [3, 4], [5, 6]]}"), HasSubstr("counts 2 experts, the model has 8"));
  EXPECT_THAT(said("{\"logical_count\": [[1,1,1,1,1,1,1,1]], \"layers\": [1]}"), HasSubstr("has no layer 3"));
  EXPECT_THAT(said("{\"logical_count\": [[1,0,0,0,0,0,0,0],[1,1,1,1,1,1,1,1],[1,1,1,1,1,1,1,1]]}"), HasSubstr("logical_count[0] has fewer than top_k = 2"));
  EXPECT_THAT(said("{\"logical_count\": [[1,1],[1,1]], \"layers\": [1, 1]}"), HasSubstr("layer 1 is there twice"));
}

}  // namespace
}  // namespace epsim
