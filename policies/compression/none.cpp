#include "policies/compression.h"

namespace epsim::parts_compression {

/// The model as it is: what a comparison measures the others against.
Compression none(Params&, const Shape*) {
  Compression compression;
  compression.summary = "the model as it is";
  return compression;
}

}  // namespace epsim::parts_compression
