#include <ostream>
#include <utility>

#include "analysis/export/fields.h"
#include "analysis/export/writers.h"

namespace epsim {

void write_csv(std::ostream& out, const RunMetrics& run) {
  const char* separator = "";
  for (const LayerField& field : layer_fields()) out << std::exchange(separator, ",") << field.name;
  out << "\r\n";
  for (const LayerMetrics& layer : run.layers) {
    separator = "";
    for (const LayerField& field : layer_fields()) out << std::exchange(separator, ",") << csv_field(field.value(layer));
    out << "\r\n";
  }
}

}  // namespace epsim
