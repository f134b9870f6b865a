#include "sim/train/record.h"

namespace epsim {

std::span<const RecordColumn> record_columns() {
  static constexpr RecordColumn kColumns[] = {{"loss", "training loss and what balances (nats a byte)", &StepRecord::loss},
                                              {"cross_entropy", "training loss (nats a byte)", &StepRecord::cross_entropy},
                                              {"gradient_norm", "length of the gradient (nats a byte)", &StepRecord::gradient_norm},
                                              {"drop_rate", "dropped choices (share)", &StepRecord::drop_rate},
                                              {"imbalance", "imbalance (most / mean)", &StepRecord::imbalance},
                                              {"unused_experts", "unused experts (share)", &StepRecord::unused_experts},
                                              {"held_out_loss", "held-out loss (nats a byte)", &StepRecord::held_out_loss},
                                              {"similarity", "similarity (mean cosine)", &StepRecord::similarity}};
  return kColumns;
}

}  // namespace epsim
