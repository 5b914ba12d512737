// SPDX-License-Identifier: Apache-2.0
// What inet_diag says of the upper-layer protocol (ULP) of a TCP socket: read out of the kernel's
// answer, and in words. Asks nobody itself: that is sock_diag.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "agent/base/address.h"
#include "agent/base/result.h"

namespace mesh {

// A connected TCP socket by its own end and its peer's.
struct TcpTuple {
  Endpoint local;
  Endpoint remote;
  auto operator<=>(const TcpTuple&) const = default;
};

// The numbers are the kernel's (linux/tls.h), and of `tls` only; absent where it gives none.
struct UlpInfo {
  std::string name;  // "tls", "mptcp", "smc", "espintcp", ...
  std::optional<std::uint16_t> version{};
  std::optional<std::uint16_t> cipher{};
  std::optional<std::uint16_t> tx{};  // TLS_CONF_*: who makes the records of this direction
  std::optional<std::uint16_t> rx{};
  bool operator==(const UlpInfo&) const = default;
};

// From the body of an answer to SOCK_DIAG_BY_FAMILY that asked for INET_DIAG_INFO: an inet_diag_msg
// and its attributes. Nullopt only where the kernel would have told of a ULP and did not: the
// socket has none. Error: it is not the socket that was asked for, the kernel kept the details
// to itself, or the answer is malformed.
Result<std::optional<UlpInfo>> parse_ulp(std::span<const std::byte> answer, const TcpTuple& asked);

std::string tls_version_text(std::uint16_t version);  // "1.3"
std::string tls_cipher_text(std::uint16_t cipher);    // "AES-128-GCM"
std::string tls_config_text(std::uint16_t config);    // "none", "software", "hardware", ...

}  // namespace mesh
