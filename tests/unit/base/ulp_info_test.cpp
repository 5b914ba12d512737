// SPDX-License-Identifier: Apache-2.0
#include "agent/base/ulp_info.h"

#include <gtest/gtest.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/tls.h>
#include <sys/socket.h>

#include <cstring>
#include <vector>

namespace mesh {
namespace {

using Bytes = std::vector<std::byte>;

const TcpTuple kAsked{{*Address::parse("10.0.1.2"), 40000}, {*Address::parse("10.0.2.3"), 15008}};

template <typename T>
void append(Bytes& to, const T& value) {
  const auto* from = reinterpret_cast<const std::byte*>(&value);
  to.insert(to.end(), from, from + sizeof value);
}

Bytes attribute(std::uint16_t type, const Bytes& value) {
  Bytes all;
  append(all, nlattr{static_cast<__u16>(NLA_HDRLEN + value.size()), type});
  all.insert(all.end(), value.begin(), value.end());
  all.resize(NLA_ALIGN(all.size()));
  return all;
}

Bytes number(std::uint16_t type, std::uint16_t value) {
  Bytes bytes;
  append(bytes, value);
  return attribute(type, bytes);
}

Bytes name(const std::string& text) {
  Bytes bytes;
  for (const char c : text) bytes.push_back(static_cast<std::byte>(c));
  bytes.push_back(std::byte{0});
  return attribute(INET_ULP_INFO_NAME, bytes);
}

Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Bytes socket_of(const TcpTuple& tuple, std::uint8_t family = AF_INET) {
  inet_diag_msg message{};
  message.idiag_family = family;
  message.idiag_state = 1;
  const std::size_t skip = family == AF_INET ? 12 : 0;
  std::memcpy(message.id.idiag_src, tuple.local.address.bytes().data() + skip, 16 - skip);
  std::memcpy(message.id.idiag_dst, tuple.remote.address.bytes().data() + skip, 16 - skip);
  message.id.idiag_sport = htons(tuple.local.port);
  message.id.idiag_dport = htons(tuple.remote.port);
  Bytes bytes;
  append(bytes, message);
  return bytes;
}

// What is there for every established socket, for CAP_NET_ADMIN.
Bytes details() {
  return attribute(INET_DIAG_SHUTDOWN, Bytes(1)) + attribute(INET_DIAG_MARK, Bytes(4)) +
         attribute(INET_DIAG_INFO, Bytes(248));
}

Bytes tls_numbers() {
  return number(TLS_INFO_VERSION, TLS_1_3_VERSION) +
         number(TLS_INFO_CIPHER, TLS_CIPHER_AES_GCM_128) + number(TLS_INFO_TXCONF, TLS_CONF_SW) +
         number(TLS_INFO_RXCONF, TLS_CONF_BASE);
}

Bytes answer_with(const Bytes& ulp) {
  return socket_of(kAsked) + details() + attribute(INET_DIAG_ULP_INFO, ulp);
}

std::string error_of(const Bytes& answer) {
  const auto parsed = parse_ulp(answer, kAsked);
  return parsed ? "" : parsed.error().what;
}

TEST(UlpInfo, TlsWithAllThatTheKernelSays) {
  // With what later kernels add: a flag, and a number.
  const Bytes later = attribute(TLS_INFO_RX_NO_PAD, {}) + number(TLS_INFO_RX_NO_PAD + 1, 16384);
  for (const Bytes& inner : {tls_numbers(), tls_numbers() + later}) {
    const auto parsed =
        parse_ulp(answer_with(name("tls") + attribute(INET_ULP_INFO_TLS, inner)), kAsked);
    ASSERT_TRUE(parsed) << parsed.error().what;
    EXPECT_EQ(*parsed, (UlpInfo{"tls", TLS_1_3_VERSION, TLS_CIPHER_AES_GCM_128, TLS_CONF_SW,
                                TLS_CONF_BASE}));
  }
}

TEST(UlpInfo, TlsWithoutKeysHasNeitherVersionNorCipher) {
  const Bytes inner =
      number(TLS_INFO_TXCONF, TLS_CONF_BASE) + number(TLS_INFO_RXCONF, TLS_CONF_BASE);
  const auto parsed =
      parse_ulp(answer_with(name("tls") + attribute(INET_ULP_INFO_TLS, inner)), kAsked);
  ASSERT_TRUE(parsed) << parsed.error().what;
  EXPECT_EQ(*parsed, (UlpInfo{"tls", {}, {}, TLS_CONF_BASE, TLS_CONF_BASE}));
}

TEST(UlpInfo, ANestMayBeMarkedAsOne) {
  const Bytes ulp = name("tls") + attribute(INET_ULP_INFO_TLS | NLA_F_NESTED, tls_numbers());
  const auto parsed = parse_ulp(
      socket_of(kAsked) + details() + attribute(INET_DIAG_ULP_INFO | NLA_F_NESTED, ulp), kAsked);
  ASSERT_TRUE(parsed && *parsed);
  EXPECT_EQ((*parsed)->tx, TLS_CONF_SW);
}

TEST(UlpInfo, NoneIsKnownOnlyWhereOneWouldBeTold) {
  const auto none = parse_ulp(socket_of(kAsked) + details(), kAsked);
  ASSERT_TRUE(none) << none.error().what;
  EXPECT_EQ(*none, std::nullopt);
  // Without CAP_NET_ADMIN there is no mark, and no ULP of a socket that has one.
  EXPECT_EQ(error_of(socket_of(kAsked) + attribute(INET_DIAG_INFO, Bytes(248))),
            "sock_diag says it to CAP_NET_ADMIN only");
  // In TIME_WAIT there is nothing, in SYN_RECV only the mark.
  EXPECT_EQ(error_of(socket_of(kAsked)), "the socket is not established any more");
  EXPECT_EQ(error_of(socket_of(kAsked) + attribute(INET_DIAG_MARK, Bytes(4))),
            "the socket is not established any more");
  // Later kernels tell anybody of a ULP.
  const auto told =
      parse_ulp(socket_of(kAsked) + attribute(INET_DIAG_ULP_INFO, name("tls")), kAsked);
  ASSERT_TRUE(told && *told);
}

TEST(UlpInfo, AForeignOneIsNamedAndHasNoNumbers) {
  for (const std::string other : {"mptcp", "smc", "espintcp"}) {
    // What is inside of MPTCP's nest has the numbers of TLS's attributes.
    const Bytes nest = attribute(INET_ULP_INFO_MPTCP, tls_numbers());
    for (const Bytes& more : {Bytes(), nest}) {
      const auto parsed = parse_ulp(answer_with(name(other) + more), kAsked);
      ASSERT_TRUE(parsed) << parsed.error().what;
      EXPECT_EQ(*parsed, UlpInfo{other});
    }
  }
}

TEST(UlpInfo, AnotherSocketsAnswerIsNone) {
  const Bytes rest = details() + attribute(INET_DIAG_ULP_INFO, name("tls"));
  TcpTuple other = kAsked;
  other.local.port = 40001;
  EXPECT_EQ(error_of(socket_of(other) + rest), "sock_diag knows no such socket");
  // What the kernel finds in the place of a connection that is gone: the listener.
  other = {kAsked.local, {Address(), 0}};
  EXPECT_EQ(error_of(socket_of(other) + rest), "sock_diag knows no such socket");
}

TEST(UlpInfo, AnIPv6SocketWithIPv4AddressesIsTheSame) {
  const auto mapped = parse_ulp(socket_of(kAsked, AF_INET6) + details(), kAsked);
  ASSERT_TRUE(mapped) << mapped.error().what;
  const TcpTuple v6{{*Address::parse("fd00::1"), 40000}, {*Address::parse("fd00::2"), 15008}};
  const auto parsed = parse_ulp(
      socket_of(v6, AF_INET6) + details() + attribute(INET_DIAG_ULP_INFO, name("tls")), v6);
  ASSERT_TRUE(parsed && *parsed);
  EXPECT_EQ((*parsed)->name, "tls");
}

// Cut anywhere it is an error or, after a whole attribute, knows less; never something else.
TEST(UlpInfo, ATruncatedAnswerIsNeverMisread) {
  const Bytes ulp =
      attribute(INET_DIAG_ULP_INFO, name("tls") + attribute(INET_ULP_INFO_TLS, tls_numbers()));
  const Bytes whole = socket_of(kAsked) + ulp + details();
  const auto right = parse_ulp(whole, kAsked);
  ASSERT_TRUE(right && *right);
  const std::size_t ulp_end = socket_of(kAsked).size() + ulp.size();
  std::size_t refused = 0;
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    const auto parsed = parse_ulp(cut, kAsked);
    if (!parsed) {
      ++refused;
      continue;
    }
    EXPECT_GE(size, ulp_end);
    EXPECT_EQ(*parsed, *right) << size;
  }
  EXPECT_GE(refused, ulp_end);
}

TEST(UlpInfo, LengthsThatLieAreRefused) {
  const auto with_length = [](std::uint16_t length) {
    Bytes lies;
    append(lies, nlattr{length, INET_DIAG_ULP_INFO});
    return socket_of(kAsked) + details() + lies;
  };
  for (const std::uint16_t length : {0, 3, 5, 65535})
    EXPECT_EQ(error_of(with_length(length)), "sock_diag's answer is malformed") << length;
  // No name at all, an empty one, a number of one byte, a nest cut short.
  EXPECT_EQ(error_of(answer_with({})), "sock_diag's answer is malformed");
  EXPECT_EQ(error_of(answer_with(name(""))), "sock_diag's answer is malformed");
  EXPECT_EQ(error_of(answer_with(
                name("tls") + attribute(INET_ULP_INFO_TLS, attribute(TLS_INFO_TXCONF, Bytes(1))))),
            "sock_diag's answer is malformed");
  Bytes nest = tls_numbers();
  nest.resize(nest.size() - 4);
  EXPECT_EQ(error_of(answer_with(name("tls") + attribute(INET_ULP_INFO_TLS, nest))),
            "sock_diag's answer is malformed");
}

TEST(UlpInfo, InWords) {
  EXPECT_EQ(tls_version_text(TLS_1_3_VERSION), "1.3");
  EXPECT_EQ(tls_version_text(TLS_1_2_VERSION), "1.2");
  EXPECT_EQ(tls_version_text(0x7f), "unknown (0x007f)");
  EXPECT_EQ(tls_cipher_text(TLS_CIPHER_AES_GCM_256), "AES-256-GCM");
  EXPECT_EQ(tls_cipher_text(TLS_CIPHER_CHACHA20_POLY1305), "CHACHA20-POLY1305");
  EXPECT_EQ(tls_cipher_text(99), "unknown (99)");
  EXPECT_EQ(tls_config_text(TLS_CONF_BASE), "none");
  EXPECT_EQ(tls_config_text(TLS_CONF_HW), "hardware");
  EXPECT_EQ(tls_config_text(0), "unknown (0)");
}

}  // namespace
}  // namespace mesh
