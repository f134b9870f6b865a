#include "policies/idle_experts.h"

namespace epsim {

IdleExperts read_idle_experts(Params& p) {
  const auto read = [&](std::string_view key, std::string_view help) { return static_cast<int>(p.integer(key, help, 0, 0, 65535)); };
  IdleExperts idle;
  idle.zero = read("zero", "experts that give nothing");
  idle.identity = read("identity", "experts that give the token itself");
  idle.constant = read("constant", "experts that give a learned vector, mixed with the token");
  return idle;
}

}  // namespace epsim
