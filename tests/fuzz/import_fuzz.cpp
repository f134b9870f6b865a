// All readers of other programs' recordings: the first byte chooses the format.
#include <cstdint>
#include <string>
#include <vector>

#include "base/npz.h"
#include "workloads/import/formats.h"
#include "workloads/import/ours.h"
#include "workloads/import/settle.h"
#include "workloads/import/slot_table.h"

namespace {

std::string under(std::string_view format, const std::string& text) {
  char choice = 0;
  for (const epsim::ForeignFormat& f : epsim::foreign_formats()) {
    if (f.name == format) return choice + text;
    ++choice;
  }
  return 'z' + text;
}

}  // namespace

std::vector<std::string> fuzz_seeds() {
  epsim::NpzWriter counts, ids;
  counts.add("logical_count", {1, 2, 2}, std::vector<std::int64_t>{1, 2, 3, 4});
  ids.add("expert_ids", {2, 1, 2}, std::vector<std::int64_t>{0, 1, 2, 3});
  const std::string header = R"({"0_3":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}})";
  return {under("csv", "step,layer,expert,tokens\n0,1,2,3\n1,1,0,5\n"),
          under("kineto", R"({"traceEvents": [{"cat": "kernel", "ts": 5, "args": {"Collective name": "all_to_allv", "dtype": "Half", "In msg nelems": 4, "In split size": "[2]"}}]})"),
          under("megatron", "{\"rank\": 0, \"step\": 1, \"layer\": 1, \"num_tokens\": 1, \"top_indices\": [[0, 1]]}\n{\"rank\": 0, \"step\": 1, \"layer\": 2, \"top_indices\": [[2, 3]]}\n"),
          under("moe-bundle", "{\"gate\": \"l.1\", \"source_rank\": 1, \"topk_experts\": [2, 3], \"count\": 2}\n"),
          under("moe-bundle", R"({"layers": [{"gate": "l.0", "source_rank": [0, 1], "topk_experts": [[4], [2]], "count": [3, 1]}]})"),
          under("sglang", R"({"logical_count": [[[1, 2], [3, 4]], [[1, 2], [3, 4]]]})"),
          under("sglang", R"({"last_physical_to_logical_map": [[0, 1, 0]], "records": [{"forward_pass_id": 7, "global_physical_count": [[1, 2, 4]]}]})"),
          under("sglang", R"({"records": [{"topk_ids_of_layer": [[[2, 1], [-1, -1]]]}]})"),
          under("sglang", counts.bytes()),
          under("tensorrt-llm", R"({"num_experts": 2, "0_4": [1, 2], "1_6": [3, 4]})"),
          under("tensorrt-llm", static_cast<char>(header.size()) + std::string(7, '\0') + header + std::string(4, '\1')),
          under("tensorrt-llm-balancer", "num_slots: 2\ninitial_global_assignments: {0: [1, 0], 1: [0, 1]}\n"),
          under("vllm", ids.bytes()),
          under("vllm-ascend", R"({"moe_layer_count": 1, "layer_list": [{"layer_id": 0, "device_count": 1, "device_list": [{"device_id": 0, "device_expert": [0, 1]}]}]})"),
          "z{\"layers\": [3], \"physical_to_logical\": [[0, 1, 0]], \"first_slot\": [[0, 1, 3]]}"};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto file = std::make_shared<const epsim::SourceText>(epsim::SourceText{"fuzz", std::string(reinterpret_cast<const char*>(data + 1), size - 1)});
  try {
    if (data[0] == 'z') {
      for (const auto& row : epsim::read_slot_table(file, 2).slots.first_slot) epsim::ensure(row.size() >= 2 && row.front() == 0, "slots begin at 0");
      return 0;
    }
    const auto formats = epsim::foreign_formats();
    const epsim::ForeignFormat& format = formats[data[0] % formats.size()];
    format.looks_like(*file);
    epsim::Recording r = format.read({file}, {1});
    epsim::settle(r, {file}, {nullptr, 0, true});
    epsim::ensure(r.layers.empty() || static_cast<std::int64_t>(r.layers.size()) == r.rows, "a recording names all of its layers or none");
    if (const auto* choices = std::get_if<epsim::RecordedChoices>(&r.data)) {
      epsim::ensure(static_cast<std::int64_t>(choices->experts.size()) == choices->tokens * r.rows * choices->top_k, "every token has its choices");
      for (const std::int32_t e : choices->experts) epsim::ensure(e >= 0 && e < r.experts, "choices that were settled are of experts");
      epsim::to_trace(r);
    } else if (std::holds_alternative<epsim::RecordedCounts>(r.data)) {
      epsim::to_loads(r);
    } else if (std::holds_alternative<epsim::RecordedSlots>(r.data)) {
      epsim::to_placement(r);
    } else {
      epsim::to_matrix_csv(r, {});
    }
  } catch (const epsim::InputError& e) {
    for (const epsim::Diagnostic& d : e.problems()) epsim::ensure(!epsim::render(d).empty(), "a problem can be told");
  }
  return 0;
}
