#pragma once

namespace epsim {

/// The experts behind a model's that have scores but compute nothing, in this order (MoE++, Jin et al. 2024). No row is sent to them.
struct IdleExperts {
  int zero = 0;      ///< give nothing
  int identity = 0;  ///< give the token x itself
  int constant = 0;  ///< give a1 x + a2 v, (a1, a2) being the softmax of x W, with a learned vector v and matrix W [hidden][2]

  int count() const { return zero + identity + constant; }
  bool operator==(const IdleExperts&) const = default;
};

}  // namespace epsim
