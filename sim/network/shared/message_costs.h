#pragma once
#include "base/params.h"
#include "sim/network/network.h"
#include "sim/network/shared/curve.h"

namespace epsim {

/// What a message costs beside its bytes on the links: LogGP's o and g (Alexandrov, Ionescu, Schauser, Scheiman, "LogGP: incorporating long messages into the LogP model", SPAA 1995), the hand-shake of
/// long messages, and Hockney's half-performance length. LogGP's L is the latency of the links, its G one over their bandwidth. All off by default. docs/network.md says what each means.
struct MessageCosts {
  double overhead = 0;     ///< o, seconds of a rank's processor for each message that it sends or receives
  double gap = 0;          ///< g, seconds at least between two messages that a rank sends, and between two that it receives
  double rendezvous = 0;   ///< bytes; longer messages, and those of this size, first ask and are answered. 0: none
  double half_size = 0;    ///< n_half, bytes: a message of n bytes takes the wire for n + n_half
  Curve efficiency;        ///< by bytes: the share of the bandwidth that a message of that size reaches; instead of half_size
  /// Bytes that a message takes the wire for.
  double on_wire(double bytes) const { return efficiency.flat() ? bytes + half_size : bytes / efficiency(bytes); }
  bool any() const { return overhead > 0 || gap > 0 || rendezvous > 0 || half_size > 0 || !efficiency.flat(); }
};

/// Reads `overhead`, `gap` or `message_rate`, `rendezvous`, and `half_size` or `efficiency`: settings of every network model.
MessageCosts read_message_costs(Params& p);

/// The model with these costs; the very same model where there are none.
NetworkModel with_message_costs(const MessageCosts& costs, NetworkModel model);

}  // namespace epsim
