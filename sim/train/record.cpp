#include "sim/train/record.h"

namespace epsim {

std::span<const RecordColumn> record_columns() {
  static constexpr RecordColumn kColumns[] = {{"loss", &StepRecord::loss},
                                              {"cross_entropy", &StepRecord::cross_entropy},
                                              {"gradient_norm", &StepRecord::gradient_norm},
                                              {"drop_rate", &StepRecord::drop_rate},
                                              {"imbalance", &StepRecord::imbalance},
                                              {"unused_experts", &StepRecord::unused_experts},
                                              {"held_out_loss", &StepRecord::held_out_loss},
                                              {"similarity", &StepRecord::similarity}};
  return kColumns;
}

}  // namespace epsim
