// SPDX-License-Identifier: Apache-2.0
// The request and the reply on a mesh leg: what is read back, and what is refused.
#include "agent/relay/mesh_message.h"

#include <gtest/gtest.h>

namespace mesh::relay {
namespace {

TEST(MeshMessage, ARequestIsReadBack) {
  const auto bytes = encode(MeshRequest{0x1f90, 0xc001});
  EXPECT_EQ(bytes[2], std::byte{0x1f});  // network byte order
  EXPECT_EQ(bytes[3], std::byte{0x90});
  const auto request = decode_request(bytes);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->port, 0x1f90);
  EXPECT_EQ(request->client_port, 0xc001);
}

TEST(MeshMessage, WhatIsNotARequestIsRefused) {
  const auto good = encode(MeshRequest{80, 1});
  for (const std::size_t fixed : {0u, 1u, 6u, 7u}) {
    auto bad = good;
    bad[fixed] ^= std::byte{0x80};
    EXPECT_FALSE(decode_request(bad)) << fixed;
  }
  EXPECT_FALSE(decode_request(encode(MeshRequest{0, 1})));
}

TEST(MeshMessage, EveryReplyIsReadBack) {
  const auto fine = decode_reply(encode(MeshReply{}));
  ASSERT_TRUE(fine);
  EXPECT_TRUE(fine->connected);
  for (std::size_t i = 0; i < kDialReasons; ++i) {
    const auto reason = static_cast<DialReason>(i);
    const auto reply = decode_reply(encode(MeshReply{false, reason}));
    ASSERT_TRUE(reply);
    EXPECT_FALSE(reply->connected);
    EXPECT_EQ(reply->reason, reason);
  }
}

TEST(MeshMessage, AReasonOfALaterVersionIsAnErrorAndNoConnection) {
  std::array<std::byte, kMeshReplyBytes> bytes{std::byte{1}, std::byte{0xfe}};
  const auto reply = decode_reply(bytes);
  ASSERT_TRUE(reply);
  EXPECT_FALSE(reply->connected);
  EXPECT_EQ(reply->reason, DialReason::Error);
  bytes[0] = std::byte{2};
  EXPECT_FALSE(decode_reply(bytes));
}

}  // namespace
}  // namespace mesh::relay
