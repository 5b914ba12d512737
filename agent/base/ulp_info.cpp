// SPDX-License-Identifier: Apache-2.0
#include "agent/base/ulp_info.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/tls.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

namespace mesh {
namespace {

using Bytes = std::span<const std::byte>;

template <typename T>
std::optional<T> read(Bytes from) {
  if (from.size() < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, from.data(), sizeof value);
  return value;
}

// Calls visit(type, payload) for each attribute. False: one goes beyond the end.
template <typename Visit>
bool each_attribute(Bytes attributes, const Visit& visit) {
  while (!attributes.empty()) {
    const auto head = read<nlattr>(attributes);
    if (!head || head->nla_len < NLA_HDRLEN || head->nla_len > attributes.size()) return false;
    visit(head->nla_type & NLA_TYPE_MASK,
          attributes.subspan(NLA_HDRLEN, head->nla_len - NLA_HDRLEN));
    // The last one need not be padded.
    attributes = attributes.subspan(
        std::min<std::size_t>(NLA_ALIGN(std::size_t{head->nla_len}), attributes.size()));
  }
  return true;
}

Endpoint endpoint(int family, const __be32 (&address)[4], __be16 port) {
  if (family == AF_INET) return {Address::from_v4(address[0]), ntohs(port)};
  std::array<std::uint8_t, 16> bytes;
  std::memcpy(bytes.data(), address, bytes.size());
  return {Address(bytes), ntohs(port)};
}

tl::unexpected<Error> malformed() { return fail("sock_diag's answer is malformed"); }

Result<UlpInfo> parse_info(Bytes nest) {
  UlpInfo info;
  std::optional<Bytes> tls;
  const bool whole = each_attribute(nest, [&](int type, Bytes value) {
    if (type == INET_ULP_INFO_NAME) {
      const std::string_view text(reinterpret_cast<const char*>(value.data()), value.size());
      info.name = text.substr(0, text.find('\0'));
    } else if (type == INET_ULP_INFO_TLS) {
      tls = value;
    }
  });
  if (!whole || info.name.empty()) return malformed();
  if (!tls) return info;
  bool numbers = true;
  const bool inner = each_attribute(*tls, [&](int type, Bytes value) {
    auto* to = type == TLS_INFO_VERSION  ? &info.version
               : type == TLS_INFO_CIPHER ? &info.cipher
               : type == TLS_INFO_TXCONF ? &info.tx
               : type == TLS_INFO_RXCONF ? &info.rx
                                         : nullptr;
    if (to == nullptr) return;
    *to = read<std::uint16_t>(value);
    numbers = numbers && to->has_value();
  });
  if (!inner || !numbers) return malformed();
  return info;
}

}  // namespace

Result<std::optional<UlpInfo>> parse_ulp(Bytes answer, const TcpTuple& asked) {
  const auto socket = read<inet_diag_msg>(answer);
  if (!socket) return malformed();
  const int family = socket->idiag_family;
  // Without the connection it finds the listener of its port.
  if (endpoint(family, socket->id.idiag_src, socket->id.idiag_sport) != asked.local ||
      endpoint(family, socket->id.idiag_dst, socket->id.idiag_dport) != asked.remote)
    return fail("sock_diag knows no such socket");
  std::optional<Bytes> ulp;
  bool info = false, mark = false;
  const bool whole = each_attribute(
      answer.subspan(std::min<std::size_t>(NLMSG_ALIGN(sizeof *socket), answer.size())),
      [&](int type, Bytes value) {
        if (type == INET_DIAG_ULP_INFO) ulp = value;
        info = info || type == INET_DIAG_INFO;
        mark = mark || type == INET_DIAG_MARK;
      });
  if (!whole) return malformed();
  if (!ulp) {
    // A ULP comes behind tcp_info (inet_sk_diag_fill), and 6.1 and 6.12 tell of it to whom they
    // tell the mark of every socket. Where one of these two is missing nothing is known of a ULP;
    // of a socket in TIME_WAIT or SYN_RECV there never is tcp_info.
    if (!info) return fail("the socket is not established any more");
    if (!mark) return fail("sock_diag says it to CAP_NET_ADMIN only");
    return std::nullopt;
  }
  auto parsed = parse_info(*ulp);
  if (!parsed) return tl::unexpected(std::move(parsed).error());
  return std::move(*parsed);
}

std::string tls_version_text(std::uint16_t version) {
  switch (version) {
    case TLS_1_2_VERSION:
      return "1.2";
    case TLS_1_3_VERSION:
      return "1.3";
  }
  return fmt::format("unknown (0x{:04x})", version);
}

std::string tls_cipher_text(std::uint16_t cipher) {
  switch (cipher) {
    case TLS_CIPHER_AES_GCM_128:
      return "AES-128-GCM";
    case TLS_CIPHER_AES_GCM_256:
      return "AES-256-GCM";
    case TLS_CIPHER_CHACHA20_POLY1305:
      return "CHACHA20-POLY1305";
  }
  return fmt::format("unknown ({})", cipher);
}

std::string tls_config_text(std::uint16_t config) {
  switch (config) {
    case TLS_CONF_BASE:
      return "none";
    case TLS_CONF_SW:
      return "software";
    case TLS_CONF_HW:
      return "hardware";
    case TLS_CONF_HW_RECORD:
      return "hardware-record";
  }
  return fmt::format("unknown ({})", config);
}

}  // namespace mesh
