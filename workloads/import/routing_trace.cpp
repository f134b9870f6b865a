#include "workloads/import/routing_trace.h"

#include <fmt/format.h>

#include <limits>
#include <stdexcept>

#include "workloads/import/routing_trace.pb.h"

namespace epsim {
namespace {

constexpr std::string_view kKind = "epsim routing trace";

/// Field 1, of bytes, and their number.
const std::string kFirstBytes = std::string("\x0a") + static_cast<char>(kKind.size()) + std::string(kKind);

NpyArray of_integers(std::vector<std::int64_t> shape, const google::protobuf::RepeatedField<std::int32_t>& values) {
  NpyArray a;
  a.shape = std::move(shape), a.integers.assign(values.begin(), values.end());
  return a;
}

}  // namespace

std::string to_protobuf_trace(const Recording& recording) {
  const auto& choices = std::get<RecordedChoices>(recording.data);
  RoutingTrace trace;
  trace.set_kind(std::string(kKind));
  trace.set_rows(static_cast<std::int32_t>(recording.rows)), trace.set_top_k(choices.top_k);
  trace.mutable_layers()->Add(recording.layers.begin(), recording.layers.end());
  trace.mutable_expert_ids()->Add(choices.experts.begin(), choices.experts.end());
  trace.mutable_expert_weights()->Add(choices.weights.begin(), choices.weights.end());
  std::string bytes;
  if (trace.ByteSizeLong() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()) || !trace.SerializeToString(&bytes))
    throw std::runtime_error("a trace of more than 2 GiB is too long for Protobuf: take an .npz");
  return bytes;
}

std::map<std::string, NpyArray> read_trace(const std::shared_ptr<const SourceText>& file) {
  const auto fail = [&](const std::string& message) { throw InputError({file, 0, 0}, message); };
  if (file->text.starts_with("\x93NUMPY")) fail(fmt::format("is a bare .npy array, expected an .npz: `epsim import {} --from vllm --out trace.npz` makes one of it", file->name));
  if (!file->text.starts_with(kFirstBytes)) return read_npz(file);
  RoutingTrace trace;
  if (!trace.ParseFromString(file->text)) fail("is a routing trace that ends early or is damaged");
  const std::int64_t rows = trace.rows(), k = trace.top_k(), count = trace.expert_ids_size();
  if (rows <= 0 || k <= 0) fail(fmt::format("is a routing trace of {} layers and {} choices a token; there must be some", rows, k));
  if (count % (rows * k) != 0) fail(fmt::format("is a routing trace whose {} choices are no whole number of tokens with {} layers of {}", count, rows, k));
  if (trace.layers_size() != 0 && trace.layers_size() != rows) fail(fmt::format("is a routing trace of {} layers with indices for {}", rows, trace.layers_size()));
  if (trace.expert_weights_size() != 0 && trace.expert_weights_size() != count) fail(fmt::format("is a routing trace of {} choices with {} weights", count, trace.expert_weights_size()));
  const std::vector<std::int64_t> shape = {count / (rows * k), rows, k};
  std::map<std::string, NpyArray> arrays = {{"expert_ids", of_integers(shape, trace.expert_ids())}};
  if (trace.layers_size() != 0) arrays["layers"] = of_integers({rows}, trace.layers());
  if (trace.expert_weights_size() != 0) {
    NpyArray& weights = arrays["expert_weights"];
    weights.shape = shape, weights.is_float = true;
    weights.floats.assign(trace.expert_weights().begin(), trace.expert_weights().end());
  }
  return arrays;
}

}  // namespace epsim
