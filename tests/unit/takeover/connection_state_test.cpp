// SPDX-License-Identifier: Apache-2.0
// A connection as bytes: it comes back as it was, and whatever else the bytes say is refused.
#include "agent/takeover/connection_state.h"

#include <gtest/gtest.h>

#include "agent/takeover/handover.h"
#include "ktls/record.h"

namespace mesh::takeover {
namespace {

using relay::ConnectionState;
using relay::FlowPhase;

std::vector<std::byte> some(std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7);
  return bytes;
}

ConnectionState plain() {
  ConnectionState state;
  state.client_netns = 0x1122334455667788u;
  state.server_netns = 42;
  state.client = {*Address::parse("10.0.0.1"), 40000};
  state.local = {*Address::parse("127.0.0.1"), 15001};
  state.server = {*Address::parse("fd00::1"), 8080};
  state.age = std::chrono::milliseconds(123456);
  state.server_urgent = true;
  state.to_server = {FlowPhase::Copying, 1000, some(300)};
  state.to_client = {FlowPhase::Ended, 77, {}};
  return state;
}

ConnectionState secured() {
  ConnectionState state = plain();
  relay::LegSecurity security;
  security.peer.id = *ktls::SpiffeId::parse("spiffe://mesh.test/ns/default/dc/dc1/svc/web");
  security.peer.node = "b";
  security.peer.not_after = std::chrono::sys_seconds(std::chrono::seconds(2'000'000'000));
  security.peer.root.fill(7);
  security.own_id = "spiffe://mesh.test/ns/default/dc/dc1/svc/caller";
  security.sni = "web.default.dc1.internal.mesh.test";
  security.resumed = true;
  security.reused = true;
  security.reusable = true;
  state.security = security;
  state.secure_side = relay::Side::Inbound;
  state.request = relay::MeshRequest{8080, 40000};
  ktls::StreamState stream;
  stream.cipher = ktls::Cipher::Aes128Gcm;
  const std::vector<std::uint8_t> key(32, 9);
  for (auto* direction : {&stream.tx, &stream.rx}) {
    direction->keys.key.assign(std::span(key).first(16));
    direction->keys.iv.assign(std::span(key).first(12));
    direction->sequence = 5;
  }
  stream.cipher_in = some(1000);
  stream.plain_in = some(ktls::kMaxPlain);
  stream.cipher_out = some(500);
  state.stream = stream;
  return state;
}

void expect_same(const ConnectionState& a, const ConnectionState& b) {
  EXPECT_EQ(a.client_netns, b.client_netns);
  EXPECT_EQ(a.server_netns, b.server_netns);
  EXPECT_EQ(a.client, b.client);
  EXPECT_EQ(a.local, b.local);
  EXPECT_EQ(a.server, b.server);
  EXPECT_EQ(a.age, b.age);
  EXPECT_EQ(a.client_urgent, b.client_urgent);
  EXPECT_EQ(a.server_urgent, b.server_urgent);
  for (auto [x, y] :
       {std::pair{&a.to_server, &b.to_server}, std::pair{&a.to_client, &b.to_client}}) {
    EXPECT_EQ(x->phase, y->phase);
    EXPECT_EQ(x->bytes, y->bytes);
    EXPECT_EQ(x->rest, y->rest);
  }
}

TEST(TakeoverState, ComesBackAsItWas) {
  const auto back = parse_connection_state(serialize(plain()));
  ASSERT_TRUE(back) << back.error().what;
  expect_same(*back, plain());
  EXPECT_FALSE(back->security);

  const ConnectionState wanted = secured();
  const auto tls = parse_connection_state(serialize(wanted));
  ASSERT_TRUE(tls) << tls.error().what;
  expect_same(*tls, wanted);
  EXPECT_EQ(tls->security->peer.id, wanted.security->peer.id);
  EXPECT_EQ(tls->security->peer.node, "b");
  EXPECT_EQ(tls->security->peer.not_after, wanted.security->peer.not_after);
  EXPECT_EQ(tls->security->peer.root, wanted.security->peer.root);
  EXPECT_EQ(tls->security->own_id, wanted.security->own_id);
  EXPECT_EQ(tls->security->sni, wanted.security->sni);
  EXPECT_TRUE(tls->security->resumed && tls->security->reused && tls->security->reusable);
  EXPECT_EQ(tls->secure_side, relay::Side::Inbound);
  EXPECT_EQ(tls->request->port, 8080);
  EXPECT_EQ(tls->stream->cipher_out, wanted.stream->cipher_out);
  EXPECT_EQ(tls->stream->plain_in, wanted.stream->plain_in);

  ConnectionState idle = secured();
  idle.idle = true;
  idle.request.reset();
  idle.server_netns = 0;
  idle.to_server = idle.to_client = {};
  EXPECT_TRUE(parse_connection_state(serialize(idle)));
}

TEST(TakeoverState, TheLargestIsWithinTheFrame) {
  ConnectionState state = secured();
  state.to_client = {FlowPhase::Copying, 1, some(kMaxRest)};
  state.to_server = {FlowPhase::Copying, 1, some(kMaxRest)};
  state.stream->cipher_in = some(ktls::kMaxBatch);
  state.stream->cipher_out = some(ktls::kMaxCipherOut);
  const auto bytes = serialize(state);
  EXPECT_LE(bytes.size(), kMaxState);
  EXPECT_TRUE(parse_connection_state(bytes));
  state.to_client.rest.push_back(std::byte{0});
  EXPECT_FALSE(parse_connection_state(serialize(state)));
}

TEST(TakeoverState, EveryCutAndWhatFollowsTheEndIsRefused) {
  for (const auto& bytes : {serialize(plain()), serialize(secured())}) {
    for (std::size_t size = 0; size < bytes.size(); ++size)
      EXPECT_FALSE(parse_connection_state(std::span(bytes).first(size))) << size;
    auto longer = bytes;
    longer.push_back(0);
    EXPECT_FALSE(parse_connection_state(longer));
    auto other = bytes;
    ++other[0];
    EXPECT_FALSE(parse_connection_state(other)) << "another version";
  }
}

TEST(TakeoverState, WhatContradictsItselfIsRefused) {
  const auto refused = [](const ConnectionState& state) {
    return !parse_connection_state(serialize(state));
  };
  ConnectionState state = plain();
  state.to_server.phase = FlowPhase::Ended;
  EXPECT_TRUE(refused(state)) << "bytes behind the end";
  state.to_server.rest.clear();
  EXPECT_TRUE(refused(state)) << "ended both ways";
  state = plain();
  state.request = relay::MeshRequest{1, 1};
  EXPECT_TRUE(refused(state)) << "a request without a leg";
  state = secured();
  state.secure_side = relay::Side::Outbound;
  EXPECT_TRUE(refused(state)) << "a request on a dialed leg";
  state = secured();
  state.idle = true;
  EXPECT_TRUE(refused(state)) << "idle with a request";
  state = plain();
  state.idle = true;
  EXPECT_TRUE(refused(state)) << "idle and plain";
  state = secured();
  state.stream->rx.keys.key.wipe();
  EXPECT_TRUE(refused(state)) << "a stream without its key";
  state = secured();
  state.security->peer.id = {};
  EXPECT_TRUE(refused(state)) << "nobody";
}

TEST(TakeoverState, AnotherAgentIsToldWhatToDo) {
  const auto ask = [](nlohmann::json request) { return check_request(request, 3, "1.0.0"); };
  EXPECT_TRUE(ask({{"protocol", kProtocol}, {"abi", 3}, {"version", "1.2.0"}}));
  const auto abi = ask({{"protocol", kProtocol}, {"abi", 4}, {"version", "2.0.0"}});
  ASSERT_FALSE(abi);
  EXPECT_NE(abi.error().what.find("mesh-agent cleanup"), std::string::npos) << abi.error().what;
  EXPECT_NE(abi.error().what.find("2.0.0"), std::string::npos) << abi.error().what;
  const auto protocol = ask({{"protocol", kProtocol + 1}, {"abi", 3}});
  ASSERT_FALSE(protocol);
  EXPECT_NE(protocol.error().what.find("SIGTERM"), std::string::npos) << protocol.error().what;
  EXPECT_FALSE(ask({{"protocol", "1"}, {"abi", nullptr}, {"version", 7}}));
  EXPECT_FALSE(ask(nlohmann::json::object()));
}

}  // namespace
}  // namespace mesh::takeover
