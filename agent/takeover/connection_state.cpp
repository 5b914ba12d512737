// SPDX-License-Identifier: Apache-2.0
#include "agent/takeover/connection_state.h"
#include "agent/takeover/wipe.h"

#include <algorithm>
#include <limits>

#include "agent/takeover/wire_bytes.h"
#include "ktls/record.h"

namespace mesh::takeover {
namespace {

constexpr std::size_t kMaxUri = 2048;
constexpr std::size_t kMaxName = 1024;
// Its buffers, full, and what is said of them.
constexpr std::size_t kMaxStream = ktls::kMaxBatch + ktls::kMaxPlain + ktls::kMaxCipherOut + 1024;
static_assert(2 * kMaxRest + kMaxStream + 64 * 1024 <= kMaxState);
// Ten years: what a clock that was wrong could make of an age must not overflow a time point.
constexpr std::uint64_t kMaxAgeMs = std::uint64_t{10} * 365 * 24 * 3600 * 1000;
// Years 1970 to 9999, as certificates have them.
constexpr std::uint64_t kMaxNotAfter = 253'402'300'800;

void write(Writer& out, const relay::FlowState& flow) {
  out.number(static_cast<std::uint8_t>(flow.phase));
  out.number(flow.bytes);
  out.bytes(flow.rest.data(), flow.rest.size());
}

relay::FlowState read_flow(Reader& in) {
  relay::FlowState flow;
  flow.phase = static_cast<relay::FlowPhase>(in.number_below<std::uint8_t>(4));
  flow.bytes = in.number<std::uint64_t>();
  const auto rest = in.bytes(kMaxRest);
  const auto* at = reinterpret_cast<const std::byte*>(rest.data());
  flow.rest.assign(at, at + rest.size());
  // The end is read only when everything before it is written.
  if (flow.phase != relay::FlowPhase::Copying && !flow.rest.empty()) in.refuse();
  return flow;
}

void write(Writer& out, const relay::LegSecurity& security) {
  out.text(security.peer.id.uri());
  out.text(security.peer.node);
  out.number(static_cast<std::uint64_t>(security.peer.not_after.time_since_epoch().count()));
  out.bytes(security.peer.root.data(), security.peer.root.size());
  out.text(security.own_id);
  out.text(security.sni);
  out.flag(security.resumed);
  out.flag(security.reused);
  out.flag(security.reusable);
}

relay::LegSecurity read_security(Reader& in) {
  relay::LegSecurity security;
  if (auto id = ktls::SpiffeId::parse(in.text(kMaxUri)))
    security.peer.id = std::move(*id);
  else
    in.refuse();
  security.peer.node = in.text(kMaxName);
  security.peer.not_after =
      std::chrono::sys_seconds(std::chrono::seconds(in.number_below<std::uint64_t>(kMaxNotAfter)));
  auto& root = security.peer.root;
  if (const auto bytes = in.bytes(root.size()); bytes.size() == root.size())
    std::copy(bytes.begin(), bytes.end(), root.begin());
  else
    in.refuse();
  security.own_id = in.text(kMaxUri);
  security.sni = in.text(kMaxName);
  security.resumed = in.flag();
  security.reused = in.flag();
  security.reusable = in.flag();
  return security;
}

}  // namespace

std::vector<std::uint8_t> serialize(const relay::ConnectionState& state) {
  std::vector<std::uint8_t> stream;
  if (state.stream) stream = ktls::serialize(*state.stream);
  Writer out(8192 + stream.size() + state.to_server.rest.size() + state.to_client.rest.size());
  out.number(kStateVersion);
  out.flag(state.idle);
  out.number(state.client_netns);
  out.number(state.server_netns);
  for (const Endpoint& endpoint : {state.client, state.local, state.server}) out.endpoint(endpoint);
  out.number(static_cast<std::uint64_t>(state.age.count()));
  out.flag(state.client_urgent);
  out.flag(state.server_urgent);
  write(out, state.to_server);
  write(out, state.to_client);
  out.flag(state.security.has_value());
  if (state.security && state.stream) {
    write(out, *state.security);
    out.number(static_cast<std::uint8_t>(state.secure_side));
    out.bytes(stream.data(), stream.size());
    wipe(stream.data(), stream.size());
  }
  out.flag(state.request.has_value());
  if (state.request) {
    out.number(state.request->port);
    out.number(state.request->client_port);
  }
  return out.take();
}

Result<relay::ConnectionState> parse_connection_state(std::span<const std::uint8_t> bytes) {
  Reader in(bytes);
  const auto version = in.number<std::uint32_t>();
  if (!in.ok() || version != kStateVersion) return fail("connection state: version {}", version);
  relay::ConnectionState state;
  state.idle = in.flag();
  state.client_netns = in.number<std::uint64_t>();
  state.server_netns = in.number<std::uint64_t>();
  for (Endpoint* endpoint : {&state.client, &state.local, &state.server}) *endpoint = in.endpoint();
  state.age = std::chrono::milliseconds(in.number_below<std::uint64_t>(kMaxAgeMs));
  state.client_urgent = in.flag();
  state.server_urgent = in.flag();
  state.to_server = read_flow(in);
  state.to_client = read_flow(in);
  if (in.flag()) {
    state.security = read_security(in);
    state.secure_side = static_cast<relay::Side>(in.number_below<std::uint8_t>(relay::kSides));
    const auto stream = in.bytes(kMaxStream);
    if (!in.ok()) return fail("connection state: malformed");
    auto parsed = ktls::parse_stream_state(stream);
    if (!parsed) return context(std::move(parsed).error(), "connection state");
    state.stream = std::move(*parsed);
  }
  if (in.flag()) {
    state.request = relay::MeshRequest{};
    state.request->port = in.number<std::uint16_t>();
    state.request->client_port = in.number<std::uint16_t>();
    if (state.request->port == 0) in.refuse();
  }
  if (!in.done()) return fail("connection state: malformed");

  const bool inbound = state.security && state.secure_side == relay::Side::Inbound;
  if (state.request && !inbound) return fail("connection state: a request without a mesh leg");
  using relay::FlowPhase;
  if (state.to_server.phase == FlowPhase::Ended && state.to_client.phase == FlowPhase::Ended)
    return fail("connection state: it has ended");
  if (state.idle &&
      (!inbound || !state.security->reused || state.request || state.server_netns != 0 ||
       state.to_server.bytes != 0 || state.to_client.bytes != 0 ||
       state.to_server.phase != FlowPhase::Copying || state.to_client.phase != FlowPhase::Copying ||
       !state.to_server.rest.empty() || !state.to_client.rest.empty()))
    return fail("connection state: an idle leg that is not idle");
  return state;
}

}  // namespace mesh::takeover
