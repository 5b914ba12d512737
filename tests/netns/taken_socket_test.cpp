// SPDX-License-Identifier: Apache-2.0
// Whether a socket that is handed over is what its state says, on a kernel that takes TLS keys.
// Natively it may skip, in the guests it may not.
#include <fcntl.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cstdlib>

#include "agent/takeover/connection_state.h"
#include "agent/takeover/receive.h"
#include "ktls/kernel_stream.h"
#include "tests/unit/tls/fixture.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

namespace mesh::takeover {
namespace {

using namespace ktls::test;

class TakenSocket : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto able = ktls::probe_kernel_tls(); !able) {
      if (std::getenv("MESH_VM") != nullptr) FAIL() << able.error().what;
      GTEST_SKIP() << "this kernel takes no TLS keys: " << able.error().what;
    }
    scene_.client_options.kernel = true;
    connected_ = connect(scene_);
    ASSERT_TRUE(connected_);
    ASSERT_TRUE(connected_->client.kernel) << connected_->client.not_kernel;
    kernel_ = connected_->client.stream->export_state();
    user_ = connected_->server.stream->export_state();
  }
  // A connection whose accepted leg is that socket, with that stream.
  static Result<relay::TakenOver> take(const UniqueFd& secured, const ktls::StreamState& stream) {
    relay::ConnectionState state;
    relay::LegSecurity security;
    security.peer.id = *ktls::SpiffeId::parse("spiffe://mesh.test/ns/default/dc/dc1/svc/web");
    state.security = security;
    state.secure_side = relay::Side::Inbound;
    state.client = {*Address::parse("10.0.0.1"), 40000};
    state.stream = stream;
    Frame frame;
    frame.type = FrameType::Connection;
    frame.payload = serialize(state);
    frame.fds.emplace_back(::fcntl(secured.get(), F_DUPFD_CLOEXEC, 0));
    frame.fds.push_back(tcp_pair().client);
    return parse_connection(std::move(frame));
  }

  Scene scene_;
  std::optional<Connected> connected_;
  ktls::StreamState kernel_;  // of the client
  ktls::StreamState user_;    // of the server
};

TEST_F(TakenSocket, IsWhatItsStateSays) {
  const auto kernel = take(connected_->pair.client, kernel_);
  EXPECT_TRUE(kernel) << kernel.error().what;
  const auto user = take(connected_->pair.server, user_);
  EXPECT_TRUE(user) << user.error().what;
  EXPECT_FALSE(take(connected_->pair.client, user_));
  EXPECT_FALSE(take(connected_->pair.server, kernel_));
}

// What is left when the kernel refuses the first key: user space makes the records of that one.
TEST_F(TakenSocket, AnUlpWithoutKeysIsNotTheKernelsTls) {
  const UniqueFd& socket = connected_->pair.server;
  ASSERT_EQ(::setsockopt(socket.get(), IPPROTO_TCP, TCP_ULP, "tls", 4), 0) << errno;
  const auto user = take(socket, user_);
  EXPECT_TRUE(user) << user.error().what;
  EXPECT_FALSE(take(socket, kernel_));
}

TEST_F(TakenSocket, OneKeyIsNeither) {
  const auto pair = tcp_pair();
  for (const auto& [socket, direction] :
       {std::pair{&pair.client, TLS_RX}, std::pair{&pair.server, TLS_TX}}) {
    ASSERT_EQ(::setsockopt(socket->get(), IPPROTO_TCP, TCP_ULP, "tls", 4), 0) << errno;
    tls12_crypto_info_aes_gcm_128 info{};
    info.info.version = TLS_1_3_VERSION;
    info.info.cipher_type = TLS_CIPHER_AES_GCM_128;
    ASSERT_EQ(::setsockopt(socket->get(), SOL_TLS, direction, &info, sizeof(info)), 0) << errno;
    EXPECT_FALSE(take(*socket, user_));
    EXPECT_FALSE(take(*socket, kernel_));
  }
}

}  // namespace
}  // namespace mesh::takeover
