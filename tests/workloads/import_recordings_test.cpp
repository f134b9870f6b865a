// Readers of other programs' recordings: what a small hand-written file of each format says, and where a broken one is wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/npz.h"
#include "tests/support/part_from_yaml.h"
#include "workloads/import/formats.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::shared_ptr<const SourceText> text(const std::string& bytes, const std::string& name = "dump") { return std::make_shared<SourceText>(SourceText{name, bytes}); }

Recording read(const std::string& format, const std::vector<std::string>& files, const ImportOptions& options = {}) {
  SourceFiles texts;
  for (const std::string& file : files) texts.push_back(text(file));
  return foreign_format(format, *texts.front(), {}).read(texts, options);
}

std::string refusal(const std::string& format, const std::vector<std::string>& files, const ImportOptions& options = {}) {
  return testing::input_error([&] { read(format, files, options); });
}

const RecordedCounts& counts(const Recording& r) { return std::get<RecordedCounts>(r.data); }
const RecordedChoices& choices(const Recording& r) { return std::get<RecordedChoices>(r.data); }
const RecordedSlots& slots(const Recording& r) { return std::get<RecordedSlots>(r.data); }

TEST(ImportSglang, ReadsStepsOfCounts) {
  const Recording r = read("sglang", {R"({"rank": 0, "logical_count": [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [0, 1, 2]]]})"});
  EXPECT_EQ(r.rows, 2);
  EXPECT_EQ(r.experts, 3);
  ASSERT_EQ(counts(r).steps.size(), 2U);
  EXPECT_THAT(counts(r).steps[1].cells, ElementsAre(7, 8, 9, 0, 1, 2));
  EXPECT_EQ(counts(read("sglang", {R"({"logical_count": [[1, 2], [3, 4]]})"})).steps.size(), 1U) << "[layer][expert] is one step";
  NpzWriter w;
  w.add("logical_count", {1, 2, 2}, std::vector<std::int64_t>{1, 2, 3, 4});
  EXPECT_THAT(counts(read("sglang", {w.bytes(), w.bytes()})).steps[1].cells, ElementsAre(1, 2, 3, 4)) << "files follow each other";
}

TEST(ImportSglang, TurnsSlotsIntoExperts) {
  // Slots 0 and 2 hold expert 0. Rank 1 counts other tokens of pass 7; in pass 8 it holds a copy of rank 0's.
  const Recording r = read("sglang", {R"({"last_physical_to_logical_map": [[0, 1, 0]], "records": [
    {"forward_pass_id": 7, "rank": 0, "global_physical_count": [[1, 2, 4]]}, {"forward_pass_id": 7, "rank": 1, "global_physical_count": [[10, 0, 0]]},
    {"forward_pass_id": 8, "rank": 0, "global_physical_count": [[3, 3, 3]]}, {"forward_pass_id": 8, "rank": 1, "global_physical_count": [[3, 3, 3]]}]})"});
  EXPECT_THAT(counts(r).steps[0].cells, ElementsAre(15, 2));
  EXPECT_THAT(counts(r).steps[1].cells, ElementsAre(6, 3));
  EXPECT_THAT(r.warnings, ElementsAre(HasSubstr("1 records repeat the counts of another rank")));
  const Recording t = read("sglang", {R"({"last_physical_to_logical_map": [[0, 1, 0], [2, 1, 0]], "records": [{"topk_ids_of_layer": [[[2, 1], [-1, -1]], [[0, 1], [-1, -1]]]}]})"});
  EXPECT_EQ(choices(t).tokens, 2);
  EXPECT_THAT(choices(t).experts, ElementsAre(0, 1, 2, 1, -1, -1, -1, -1)) << "[token][layer][k]";
}

TEST(ImportSglang, SaysWhereItIsWrong) {
  EXPECT_THAT(refusal("sglang", {"{\"logical_count\":\n [[1, -2]]}"}), HasSubstr("dump:2:7: error: `logical_count`: expected a whole number from 0"));
  EXPECT_THAT(refusal("sglang", {"{\"logical_count\": [[1, 2], [3]]}"}), HasSubstr("dump:1:28: error: this layer of `logical_count` has 1 experts, the first has 2"));
  EXPECT_THAT(refusal("sglang", {"{\"logical_counts\": 1}"}), HasSubstr("did you mean `logical_counts`?"));
  EXPECT_THAT(refusal("sglang", {"{\"logical_count\": [[1, \"x\"]]}"}), HasSubstr("`logical_count` must be a list of numbers, found a text"));
  EXPECT_THAT(refusal("sglang", {"{\"logical_count\": [[1]"}), HasSubstr("is no JSON"));
  EXPECT_THAT(refusal("sglang", {R"({"logical_count": [[[1, 2]], [[1, 2], [3, 4]]]})"}), HasSubstr("2 layers of 2 experts after 1 of 2"));
  EXPECT_THAT(refusal("sglang", {R"({"records": [{"topk_ids_of_layer": [[[0, 5]]]}], "last_physical_to_logical_map": [[0, 1]]})"}), HasSubstr("slot 5 is not in `last_physical_to_logical_map`"));
  EXPECT_THAT(refusal("sglang", {R"({"records": [{"forward_pass_id": 1, "global_physical_count": [[1]]}]})"}), HasSubstr("has 1 layers, `last_physical_to_logical_map` 0"));
}

TEST(ImportVllm, ReadsArraysOfRoutedExperts) {
  NpzWriter w;
  w.add("request_0", {2, 1, 2}, std::vector<std::int64_t>{0, 1, 2, 3});
  w.add("request_1", {1, 1, 2}, std::vector<std::int64_t>{4, 5});
  const Recording r = read("vllm", {w.bytes()});
  EXPECT_EQ(choices(r).tokens, 3);
  EXPECT_THAT(choices(r).experts, ElementsAre(0, 1, 2, 3, 4, 5));
  NpzWriter weighted;
  weighted.add("expert_ids", {1, 1, 2}, std::vector<std::int64_t>{0, 1});
  weighted.add("expert_weights", {1, 1, 2}, std::vector<float>{0.75F, 0.25F});
  EXPECT_THAT(choices(read("vllm", {weighted.bytes()})).weights, ElementsAre(0.75F, 0.25F));
  const std::string npz = w.bytes(), npy = npz.substr(npz.find("\x93NUMPY"), 128 + 4 * 8);
  EXPECT_THAT(choices(read("", {npy})).experts, ElementsAre(0, 1, 2, 3)) << "a .npy shows what it is";
  NpzWriter top1;
  top1.add("routes", {2, 3}, std::vector<std::int64_t>{0, 1, 2, 3, 4, 5});
  const Recording one = read("vllm", {top1.bytes()});
  EXPECT_EQ(one.rows, 3);
  EXPECT_EQ(choices(one).top_k, 1);
  NpzWriter bad;
  bad.add("a", {1, 1, 2}, std::vector<std::int64_t>{0, -2});
  EXPECT_THAT(refusal("vllm", {bad.bytes()}), HasSubstr("a[0, 0, 1] is -2"));
  NpzWriter uneven;
  uneven.add("a", {1, 1, 2}, std::vector<std::int64_t>{0, 1});
  uneven.add("b", {1, 2, 1}, std::vector<std::int64_t>{0, 1});
  EXPECT_THAT(refusal("vllm", {uneven.bytes()}), HasSubstr("array `b` has 2 layers of 1 choices, the first has 1 of 2"));
}

TEST(ImportAscend, ReadsAnExpertMap) {
  const Recording r = read("", {R"({"moe_layer_count": 1, "layer_list": [{"layer_id": 0, "device_count": 2, "device_list": [{"device_id": 0, "device_expert": [7, 2]}, {"device_id": 1, "device_expert": [0]}]}]})"});
  EXPECT_THAT(slots(r).expert_of_slot, ElementsAre(ElementsAre(7, 2, 0)));
  EXPECT_THAT(slots(r).first_slot, ElementsAre(ElementsAre(0, 2, 3)));
  EXPECT_THAT(refusal("vllm-ascend", {R"({"moe_layer_count": 2, "layer_list": [{"device_list": [{"device_expert": [0]}]}]})"}), HasSubstr("`moe_layer_count` is 2, but `layer_list` has 1 layers"));
  EXPECT_THAT(refusal("vllm-ascend", {R"({"layer_list": [{"device_list": [{"device_id": 1, "device_expert": [0]}]}]})"}), HasSubstr("`device_id` is 1, expected 0"));
  EXPECT_THAT(refusal("vllm-ascend", {R"({"layer_list": [{"device_list": [{"device_expert": [-1]}]}]})"}), HasSubstr("dump:1:53: error: `device_expert`: expected a whole number from 0"));
}

/// A safetensors file of int32 arrays.
std::string safetensors(const std::string& header, const std::vector<std::int32_t>& values) {
  std::string out;
  for (std::size_t i = 0; i < 8; ++i) out += static_cast<char>(i < 2 ? header.size() >> (8 * i) & 255 : 0);
  out += header;
  for (const std::int32_t v : values)
    for (int i = 0; i < 4; ++i) out += static_cast<char>(v >> (8 * i) & 255);
  return out;
}

TEST(ImportTensorrt, AddsStatisticsOfRanks) {
  const std::string rank0 = safetensors(R"({"0_3":{"dtype":"I32","shape":[2],"data_offsets":[0,8]},"1_3":{"dtype":"I32","shape":[2],"data_offsets":[8,16]}})", {1, 2, 300, 4});
  const std::string rank1 = safetensors(R"({"0_3":{"dtype":"I32","shape":[2],"data_offsets":[0,8]},"0_3_raw":{"dtype":"I32","shape":[1,1],"data_offsets":[8,12]}})", {10, 20, 9});
  const Recording r = read("tensorrt-llm", {rank0, rank1, R"({"num_experts": 2, "num_experts_per_token": 1})"});
  EXPECT_THAT(r.layers, ElementsAre(3));
  EXPECT_THAT(counts(r).steps[0].cells, ElementsAre(11, 22));
  EXPECT_THAT(counts(r).steps[1].cells, ElementsAre(300, 4));
  EXPECT_THAT(r.warnings, ElementsAre(HasSubstr("1 arrays are no counts")));
  EXPECT_THAT(counts(read("tensorrt-llm", {R"({"5_4": [1, 2], "5_6": [3, 4]})"})).steps[0].cells, ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(read("tensorrt-llm", {R"({"0_4": [1, 2], "1_6": [3, 4]})"}).warnings, ElementsAre(HasSubstr("2 of 4 (iteration, layer) pairs are missing")));
  EXPECT_THAT(refusal("tensorrt-llm", {R"({"0_4": [1, 2], "1_4": [3]})"}), HasSubstr("dump:1:24: error: 1 experts are counted, others have 2"));
  EXPECT_THAT(refusal("tensorrt-llm", {R"({"a": [1, 2]})"}), HasSubstr("has no counts under keys such as `0_3`"));
  EXPECT_THAT(refusal("tensorrt-llm", {safetensors(R"({"0_3":{"dtype":"I32","shape":[1],"data_offsets":[0,8]}})", {1, 2})}), HasSubstr("array `0_3` of shape [1] does not fill its 8 bytes"));
  EXPECT_THAT(refusal("tensorrt-llm", {rank0.substr(0, 20)}), HasSubstr("its header is cut short"));
}

TEST(ImportTensorrt, ReadsABalancer) {
  const std::string yaml = "num_slots: 4\ninitial_global_assignments:\n  4: [0, 1, 2, 0]\n  3: [0, 1, 2, 2]\nlayer_updates_per_iter: 0\n";
  const Recording r = read("", {yaml}, {2});
  EXPECT_THAT(r.layers, ElementsAre(3, 4));
  EXPECT_THAT(slots(r).expert_of_slot, ElementsAre(ElementsAre(0, 1, 2, 2), ElementsAre(0, 1, 2, 0)));
  EXPECT_THAT(slots(r).first_slot[0], ElementsAre(0, 2, 4));
  EXPECT_THAT(refusal("tensorrt-llm-balancer", {yaml}), HasSubstr("give `--ranks`"));
  EXPECT_THAT(refusal("tensorrt-llm-balancer", {yaml}, {3}), HasSubstr("dump:1:12: error: 4 slots do not divide by 3 ranks"));
  EXPECT_THAT(refusal("tensorrt-llm-balancer", {"num_slots: 2\ninitial_global_assignments: {0: [1]}"}, {1}), HasSubstr("layer 0 has 1 slots, `num_slots` is 2"));
}

TEST(ImportMegatron, JoinsLayersOfARankTokenByToken) {
  const std::string trace =
      "{\"rank\": 0, \"step\": 1, \"block\": \"decoder\", \"layer\": 4, \"num_tokens\": 2, \"topk\": 2, \"top_indices\": [[0, 1], [2, 3]]}\n"
      "{\"rank\": 0, \"step\": 1, \"block\": \"mtp\", \"mtp_idx\": 0, \"layer\": 4, \"num_tokens\": 1, \"top_indices\": [[7, 8]]}\n"
      "{\"rank\": 0, \"step\": 1, \"block\": \"decoder\", \"layer\": 5, \"num_tokens\": 2, \"topk\": 2, \"top_indices\": [[4, 5], [6, 7]]}\n";
  const Recording r = read("", {trace});
  EXPECT_THAT(r.layers, ElementsAre(3, 4)) << "Megatron counts layers from 1";
  EXPECT_THAT(choices(r).experts, ElementsAre(0, 1, 4, 5, 2, 3, 6, 7));
  EXPECT_THAT(r.warnings, ElementsAre(HasSubstr("1 records of multi-token-prediction layers")));
  std::string copy = trace;
  for (std::size_t at = 0; (at = copy.find("\"rank\": 0", at)) != std::string::npos;) copy.replace(at, 9, "\"rank\": 1");
  const Recording both = read("megatron", {trace, copy});
  EXPECT_EQ(choices(both).tokens, 2) << "a replica of the same tokens";
  const Recording stages = read("megatron", {R"({"rank": 0, "step": 1, "layer": 1, "top_indices": [[0, 1]]})"
                                             "\n"
                                             R"({"rank": 1, "step": 1, "layer": 2, "top_indices": [[2, 1], [0, 2]]})"});
  EXPECT_THAT(counts(stages).steps[0].cells, ElementsAre(1, 1, 0, 1, 1, 2)) << "what cannot be joined is counted";
  EXPECT_THAT(refusal("megatron", {"\n{\"rank\": 0, \"step\": 1, \"layer\": 1, \"top_indices\": [[0, 1], [2]]}"}), HasSubstr("dump:2:60: error: this token has 1 choices, the first has 2"));
  EXPECT_THAT(refusal("megatron", {R"({"rank": 0, "step": 1, "layer": 1, "num_tokens": 3, "top_indices": [[0]]})"}), HasSubstr("`num_tokens` is 3, but `top_indices` has 1 tokens"));
}

std::string kineto(int rank, const std::string& args, const std::string& category = "kernel") {
  return "{\"distributedInfo\": {\"rank\": " + std::to_string(rank) + "}, \"traceEvents\": [{\"name\": \"x\"}, {\"cat\": \"" + category + "\", \"ts\": 5, \"args\": {\"Collective name\": \"all_to_allv\", " + args + "}}]}";
}

TEST(ImportKineto, ScalesSplitsToBytes) {
  // Rows of 4 bfloat16: 8 bytes.
  const std::string zero = kineto(0, R"("dtype": "BFloat16", "In msg nelems": 12, "Out msg nelems": 28, "In split size": "[1, 2]", "Out split size": "[1, 6]")");
  const std::string one = kineto(1, R"("dtype": "BFloat16", "In msg nelems": 28, "In split size": "[6, 1]")");
  const Recording r = read("", {one, zero});
  const auto& traffic = std::get<RecordedTraffic>(r.data);
  ASSERT_EQ(traffic.exchanges.size(), 1U);
  EXPECT_THAT(traffic.exchanges[0].cells, ElementsAre(8, 16, 48, 8));
  EXPECT_THAT(r.warnings, IsEmpty());
  const std::string liar = kineto(1, R"("dtype": "BFloat16", "In msg nelems": 20, "In split size": "[4, 1]")");
  EXPECT_THAT(read("kineto", {zero, liar}).warnings, ElementsAre(HasSubstr("1 times what one rank sends is not what the other receives")));
  EXPECT_THAT(refusal("kineto", {zero}), HasSubstr("the exchanges are over 2 ranks, but 1 file is given"));
  EXPECT_THAT(refusal("kineto", {zero, zero}), HasSubstr("is of rank 0, as a file before it"));
  EXPECT_THAT(refusal("kineto", {kineto(0, R"("dtype": "Half", "In split size": "[1, 2, ...]")")}), HasSubstr("`In split size` is cut short"));
  EXPECT_THAT(refusal("kineto", {kineto(0, R"("dtype": "Quarter", "In split size": "[1]")")}), HasSubstr("`dtype` Quarter is not known"));
}

TEST(ImportCsv, CountsLines) {
  const Recording r = read("", {"layer,expert\n3,1\n3,1\n5,0\n"});
  EXPECT_THAT(r.layers, ElementsAre(3, 5));
  EXPECT_THAT(counts(r).steps[0].cells, ElementsAre(0, 2, 1, 0));
  const Recording steps = read("csv", {"tokens,step,layer,expert\n10,0,0,1\r\n20,4,0,0\n"});
  EXPECT_THAT(counts(steps).steps[0].cells, ElementsAre(0, 10));
  EXPECT_THAT(counts(steps).steps[1].cells, ElementsAre(20, 0));
  EXPECT_THAT(counts(read("csv", {"0,2\n0,0\n"})).steps[0].cells, ElementsAre(1, 0, 1)) << "without a header";
  EXPECT_THAT(refusal("csv", {"layer,expert\n0,x\n"}), HasSubstr("dump:2:3: error: `expert` must be a whole number"));
  EXPECT_THAT(refusal("csv", {"layer,expert\n0,1,7\n"}), HasSubstr("dump:2:5: error: a line has 2 cells, this one 3"));
  EXPECT_THAT(refusal("csv", {"layer,experts\n"}), HasSubstr("column `experts` is not known, did you mean `expert`?"));
  EXPECT_THAT(refusal("csv", {"step,layer,expert\n0,0,65534\n1,1,0\n"}), "") << "two steps fit";
  std::string huge = "step,layer,expert\n0,0,65534\n";
  for (int i = 0; i < 100; ++i) huge += std::to_string(i) + "," + std::to_string(i) + ",0\n";
  EXPECT_THAT(refusal("csv", {huge}), HasSubstr("counts of 100 steps, 100 layers and 65535 experts do not fit"));
  EXPECT_THAT(read("csv", {"layer,expert\n0,1\n0,1\n"}).warnings, IsEmpty());
  EXPECT_THAT(read("csv", {"layer,expert,tokens\n0,1,5\n0,2,5\n0,1,3\n"}).warnings, ElementsAre(HasSubstr("1 lines give tokens of a step, layer and expert that a line before gave")));
}

TEST(ImportBundles, UnpacksTokens) {
  const std::string lines =
      "{\"gate\": \"model.layers.1.mlp.gate\", \"source_rank\": 1, \"topk_experts\": [2, 3], \"count\": 1}\n"
      "{\"gate\": \"model.layers.1.mlp.gate\", \"source_rank\": 0, \"topk_experts\": [0, 1], \"count\": 2}\n"
      "{\"gate\": \"model.layers.0.mlp.gate\", \"source_rank\": 0, \"topk_experts\": [1, 2], \"count\": 2}\n"
      "{\"gate\": \"model.layers.0.mlp.gate\", \"source_rank\": 1, \"topk_experts\": [0, 3]}\n";
  const Recording r = read("", {lines});
  EXPECT_THAT(r.layers, ElementsAre(0, 1));
  EXPECT_THAT(choices(r).experts, ElementsAre(1, 2, 0, 1, 1, 2, 0, 1, 0, 3, 2, 3)) << "by source rank";
  const std::string whole = R"({"format": "sglang.moe_bundle_trace.v1", "num_ranks": 2, "top_k": 1, "layers": [{"gate": "l.0", "source_rank": [0, 1], "topk_experts": [[4], [2]], "count": [3, 1]}]})";
  EXPECT_THAT(choices(read("", {whole})).experts, ElementsAre(4, 4, 4, 2));
  const Recording uneven = read("moe-bundle", {lines.substr(0, lines.rfind("{\"gate\""))});
  EXPECT_THAT(counts(uneven).steps[0].cells, ElementsAre(0, 2, 2, 0, 2, 2, 1, 1));
  EXPECT_THAT(refusal("moe-bundle", {R"({"layer": 0, "source_rank": 0, "topk_experts": [], "count": 1})"}), HasSubstr("this bundle has 0 experts"));
  EXPECT_THAT(refusal("moe-bundle", {R"({"layer": 0, "source_rank": 0, "topk_experts": [1], "count": 0})"}), HasSubstr("dump:1:62: error: `count` must be a whole number from 1"));
  EXPECT_THAT(refusal("moe-bundle", {R"({"gate": "x", "source_rank": 0, "topk_experts": [1], "count": 1})"}), HasSubstr("`gate` names no layer"));
}

TEST(ImportFormats, AreFoundByNameOrByTheirLooks) {
  EXPECT_THAT(refusal("sglangs", {"{}"}), HasSubstr("there is no format `sglangs`, did you mean `sglang`?"));
  EXPECT_THAT(refusal("", {"{}"}), HasSubstr("dump shows no format of its own; say `--from` one of csv, kineto,"));
}

}  // namespace
}  // namespace epsim
