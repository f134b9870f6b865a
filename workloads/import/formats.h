#pragma once
#include <span>
#include <string_view>

#include "workloads/import/recording.h"

namespace epsim {

/// What a reader must be told because its files do not say it.
struct ImportOptions {
  int ranks = 0;  ///< that slots lie on, in equal blocks; 0: not told
};

/// A format of another program. `looks_like` is only true where no other format can be meant.
struct ForeignFormat {
  std::string_view name, summary;
  bool (*looks_like)(const SourceText& file);
  Recording (*read)(const SourceFiles& files, const ImportOptions& options);
};

/// All of them, by name.
std::span<const ForeignFormat> foreign_formats();
/// The format of a name, or the one that the first file looks like where the name is empty. Throws InputError at `at` with the names that there are.
const ForeignFormat& foreign_format(std::string_view name, const SourceText& file, const Location& at);

// The readers, a file each. They take several files where a recording is split over ranks or steps, and throw InputError with file and place.

/// SGLang's expert distribution recorder, as JSON or .npz (tools/from_pt makes either of its .pt): `logical_count` [step][layer][expert] or [layer][expert]; or `records`, of passes with
/// `global_physical_count` [layer][slot] or of tokens with `topk_ids_of_layer` [layer][token][k], which `last_physical_to_logical_map` turns into experts.
Recording read_sglang_recording(const SourceFiles& files, const ImportOptions& options);
/// Routed experts that vLLM (`enable_return_routed_experts`) and others return: integer arrays [tokens][layers][k], or [tokens][layers] of one choice, .npy or .npz; requests follow each other.
Recording read_routed_experts(const SourceFiles& files, const ImportOptions& options);
/// vllm-ascend's expert map: `layer_list` of `device_list` of `device_expert`.
Recording read_ascend_expert_map(const SourceFiles& files, const ImportOptions& options);
/// TensorRT-LLM's expert statistics: counts [expert] by "iteration_layer", as safetensors, .npz or JSON; ranks are added up. A meta_info.json beside them tells the number of experts.
Recording read_tensorrt_statistics(const SourceFiles& files, const ImportOptions& options);
/// TensorRT-LLM's moe_load_balancer.yaml: `num_slots` and `initial_global_assignments` {layer: [expert of each slot]}. Ranks must be told.
Recording read_tensorrt_balancer(const SourceFiles& files, const ImportOptions& options);
/// Megatron-LM's router_trace_rank*.jsonl: a line a (step, layer) with `top_indices` [token][k]. Layers count from 1 there.
Recording read_megatron_trace(const SourceFiles& files, const ImportOptions& options);
/// PyTorch's profiler: all-to-all-v events of Kineto's JSON, a file a rank, with `In split size`, `In msg nelems` and `dtype`.
Recording read_kineto_splits(const SourceFiles& files, const ImportOptions& options);
/// CSV with a header of `layer`, `expert` and, if there, `step` and `tokens`; without `tokens` a line is one choice (llama.cpp's trace).
Recording read_expert_csv(const SourceFiles& files, const ImportOptions& options);
/// Bundles of tokens with one source rank and one set of experts (SGLang's moe_bundle_trace.v1): lines with `layer` or `gate`, `source_rank`, `topk_experts` and `count`, or the whole trace as one object.
Recording read_bundle_trace(const SourceFiles& files, const ImportOptions& options);

}  // namespace epsim
