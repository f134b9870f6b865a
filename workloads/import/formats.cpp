#include "workloads/import/formats.h"

#include <algorithm>
#include <array>

namespace epsim {
namespace {

/// Of a text that may be long: formats show themselves early.
std::string_view head(const SourceText& file) { return std::string_view(file.text).substr(0, std::size_t{1} << 20); }
bool has(const SourceText& file, std::string_view word) { return head(file).find(word) != std::string_view::npos; }
bool is_zip(const SourceText& file) { return file.text.starts_with("PK\x03\x04"); }
/// Names of arrays also stand in the directory at the end of a zip archive.
bool has_array(const SourceText& file, std::string_view name) { return is_zip(file) && file.text.rfind(name) != std::string::npos; }
bool is_json(const SourceText& file) {
  const std::size_t first = file.text.find_first_not_of(" \t\r\n");
  return first != std::string::npos && (file.text[first] == '{' || file.text[first] == '[');
}

/// The first line in small letters, without a byte order mark, blanks and quotes.
std::string header(const SourceText& file) {
  std::string out;
  for (const char c : head(file).substr(0, head(file).find('\n')))
    if (std::string_view("\xef\xbb\xbf \t\r\"").find(c) == std::string_view::npos) out += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c == ';' ? ',' : c;
  return out;
}

constexpr std::array kFormats = {
    ForeignFormat{"csv", "CSV with the header layer,expert (llama.cpp) or step,layer,expert,tokens: counts",
                  [](const SourceText& f) { return header(f).starts_with("layer,expert") || header(f).starts_with("step,layer,expert"); }, read_expert_csv},
    ForeignFormat{"kineto", "PyTorch profiler traces, a file a rank: bytes of all_to_allv",
                  [](const SourceText& f) { return is_json(f) && has(f, "\"traceEvents\""); }, read_kineto_splits},
    ForeignFormat{"megatron", "Megatron-LM router_trace_rank*.jsonl: choices", [](const SourceText& f) { return is_json(f) && has(f, "\"top_indices\""); }, read_megatron_trace},
    ForeignFormat{"moe-bundle", "SGLang moe_bundle_trace.v1 (JSONL or JSON): choices by source rank",
                  [](const SourceText& f) { return is_json(f) && has(f, "\"topk_experts\"") && has(f, "\"source_rank\""); }, read_bundle_trace},
    ForeignFormat{"sglang", "SGLang expert distribution recorder (JSON, .npz): counts or choices",
                  [](const SourceText& f) { return (is_json(f) && (has(f, "\"logical_count\"") || has(f, "\"last_physical_to_logical_map\"") || has(f, "\"physical_to_logical_map\""))) || has_array(f, "logical_count.npy"); },
                  read_sglang_recording},
    ForeignFormat{"tensorrt-llm", "TensorRT-LLM expert statistics (safetensors, .npz, JSON): counts", [](const SourceText&) { return false; }, read_tensorrt_statistics},
    ForeignFormat{"tensorrt-llm-balancer", "TensorRT-LLM moe_load_balancer.yaml: a placement",
                  [](const SourceText& f) { return !is_json(f) && has(f, "initial_global_assignments"); }, read_tensorrt_balancer},
    ForeignFormat{"vllm", "routed experts [tokens, layers, k] of vLLM and others (.npy, .npz): choices",
                  [](const SourceText& f) { return f.text.starts_with("\x93NUMPY") || has_array(f, "expert_ids.npy") || has_array(f, "routed_experts.npy"); }, read_routed_experts},
    ForeignFormat{"vllm-ascend", "vllm-ascend expert map (JSON): a placement",
                  [](const SourceText& f) { return is_json(f) && has(f, "\"layer_list\"") && has(f, "\"device_expert\""); }, read_ascend_expert_map},
};

}  // namespace

std::span<const ForeignFormat> foreign_formats() { return kFormats; }

const ForeignFormat& foreign_format(std::string_view name, const SourceText& file, const Location& at) {
  std::vector<std::string> names;
  const ForeignFormat* found = nullptr;
  int matches = 0;
  for (const ForeignFormat& format : kFormats) {
    names.emplace_back(format.name);
    if (name.empty() ? format.looks_like(file) : format.name == name) found = &format, ++matches;
  }
  if (matches == 1) return *found;
  if (!name.empty()) throw InputError(at, "there is no format `" + std::string(name) + "`" + suggest(name, names));
  std::string known;
  for (const std::string& n : names) known += (known.empty() ? "" : ", ") + n;
  throw InputError(at, file.name + " shows no format of its own; say `--from` one of " + known);
}

}  // namespace epsim
