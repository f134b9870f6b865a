#pragma once
#include <map>
#include <memory>
#include <string>

#include "base/npz.h"
#include "workloads/import/recording.h"

namespace epsim {

/// A settled recording of choices as Protobuf's bytes (routing_trace.proto), with what `to_trace` writes as an .npz: same recording, same bytes. Throws std::runtime_error over the 2 GiB that a message may have.
std::string to_protobuf_trace(const Recording& recording);

/// The arrays of a trace, whichever of the two forms it has, told by its first bytes: `expert_ids` [tokens, layers, k], and if there `expert_weights` of the same shape and `layers` [layers].
/// Throws InputError where it is damaged; of an .npz all arrays are given, whatever they are.
std::map<std::string, NpyArray> read_trace(const std::shared_ptr<const SourceText>& file);

}  // namespace epsim
