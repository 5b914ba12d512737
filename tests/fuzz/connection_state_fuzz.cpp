// SPDX-License-Identifier: Apache-2.0
// Any bytes as the state of a connection, as a broken predecessor could send them. Invariants: what
// is accepted says the same when it is written again, is within its bounds, and is of a form that a
// relay can go on with.
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "agent/takeover/connection_state.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace mesh;
  auto state = takeover::parse_connection_state({data, size});
  if (!state) return 0;
  require(takeover::serialize(*state) == std::vector<std::uint8_t>(data, data + size));
  for (const auto* flow : {&state->to_server, &state->to_client}) {
    require(flow->rest.size() <= takeover::kMaxRest);
    require(flow->phase == relay::FlowPhase::Copying || flow->rest.empty());
  }
  require(state->stream.has_value() == state->security.has_value());
  require(!state->idle || (state->security && state->secure_side == relay::Side::Inbound));
  require(!state->security || !state->security->peer.id.empty());
  require(state->age.count() >= 0);
  return 0;
}
