// SPDX-License-Identifier: Apache-2.0
// IP addresses, ports and CIDRs in one form: 16 bytes, IPv4 as ::ffff:a.b.c.d, network byte order.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>

#include "agent/base/result.h"

namespace mesh {

class Address {
 public:
  constexpr Address() = default;  // "::", which counts as unset
  explicit constexpr Address(const std::array<std::uint8_t, 16>& bytes) : bytes_(bytes) {}
  static Address from_v4(std::uint32_t network_order);
  static Result<Address> parse(
      std::string_view text);  // a.b.c.d or an IPv6 literal, no zone, no port

  [[nodiscard]] bool is_v4() const;  // IPv4 or v4-mapped
  [[nodiscard]] bool is_unset() const { return bytes_ == std::array<std::uint8_t, 16>{}; }
  [[nodiscard]] bool is_loopback() const;
  [[nodiscard]] const std::array<std::uint8_t, 16>& bytes() const { return bytes_; }
  [[nodiscard]] std::string to_string() const;  // v4-mapped as a.b.c.d
  auto operator<=>(const Address&) const = default;

 private:
  std::array<std::uint8_t, 16> bytes_{};
};

struct Endpoint {
  Address address;
  std::uint16_t port = 0;  // host byte order

  [[nodiscard]] std::string to_string() const;  // a.b.c.d:p or [v6]:p
  auto operator<=>(const Endpoint&) const = default;
};

// A prefix with the host bits zero. IPv4 prefixes are kept as 96 + p of the mapped form.
class Cidr {
 public:
  static Result<Cidr> parse(std::string_view text);  // refuses host bits that are set

  [[nodiscard]] bool contains(const Address& address) const;
  [[nodiscard]] bool overlaps(const Cidr& other) const;
  [[nodiscard]] const Address& base() const { return base_; }
  [[nodiscard]] unsigned mapped_prefix() const { return prefix_; }  // 0..128, over the 16 bytes
  [[nodiscard]] bool is_v4() const { return base_.is_v4() && prefix_ >= 96; }
  [[nodiscard]] std::string to_string() const;
  auto operator<=>(const Cidr&) const = default;

 private:
  Cidr(const Address& base, unsigned prefix) : base_(base), prefix_(prefix) {}
  Address base_;
  unsigned prefix_ = 128;
};

// The kernel's form. A v4(-mapped) address gives AF_INET.
struct SockAddr {
  sockaddr_storage storage{};
  socklen_t length = 0;

  explicit SockAddr(const Endpoint& endpoint);
  SockAddr() = default;
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  [[nodiscard]] sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  [[nodiscard]] int family() const { return storage.ss_family; }
};

// AF_INET or AF_INET6 as the kernel filled it in; anything else gives an unset endpoint.
Endpoint endpoint_of(const sockaddr_storage& storage);

// getsockname(2) / getpeername(2) of a socket.
Result<Endpoint> local_endpoint(int fd);
Result<Endpoint> peer_endpoint(int fd);

}  // namespace mesh

template <>
struct std::hash<mesh::Address> {
  std::size_t operator()(const mesh::Address& a) const noexcept {
    return std::hash<std::string_view>{}(
        {reinterpret_cast<const char*>(a.bytes().data()), a.bytes().size()});
  }
};
