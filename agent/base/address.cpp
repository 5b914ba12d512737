// SPDX-License-Identifier: Apache-2.0
#include "agent/base/address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

namespace mesh {
namespace {

constexpr std::array<std::uint8_t, 12> kMappedPrefix{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

Address masked(const Address& address, unsigned prefix) {
  auto bytes = address.bytes();
  for (unsigned i = 0; i < bytes.size(); ++i) {
    unsigned kept = prefix > i * 8 ? std::min(prefix - i * 8, 8u) : 0;
    bytes[i] &= static_cast<std::uint8_t>(0xff00u >> kept);
  }
  return Address(bytes);
}

}  // namespace

Address Address::from_v4(std::uint32_t network_order) {
  std::array<std::uint8_t, 16> bytes{};
  std::copy(kMappedPrefix.begin(), kMappedPrefix.end(), bytes.begin());
  std::memcpy(bytes.data() + 12, &network_order, 4);
  return Address(bytes);
}

Result<Address> Address::parse(std::string_view text) {
  std::string owned(text);
  in_addr v4{};
  if (text.find('\0') != std::string_view::npos)  // inet_pton stops there
    return fail("an IP address has no NUL in it");
  if (inet_pton(AF_INET, owned.c_str(), &v4) == 1) return from_v4(v4.s_addr);
  std::array<std::uint8_t, 16> bytes{};
  if (inet_pton(AF_INET6, owned.c_str(), bytes.data()) == 1) return Address(bytes);
  return fail("'{}' is not an IP address", text);
}

bool Address::is_v4() const {
  return std::equal(kMappedPrefix.begin(), kMappedPrefix.end(), bytes_.begin());
}

bool Address::is_loopback() const {
  if (is_v4()) return bytes_[12] == 127;
  return masked(*this, 120).is_unset() && bytes_[15] == 1;
}

std::string Address::to_string() const {
  char text[INET6_ADDRSTRLEN];
  if (is_v4()) return inet_ntop(AF_INET, bytes_.data() + 12, text, sizeof text);
  return inet_ntop(AF_INET6, bytes_.data(), text, sizeof text);
}

std::string Endpoint::to_string() const {
  if (address.is_v4()) return fmt::format("{}:{}", address.to_string(), port);
  return fmt::format("[{}]:{}", address.to_string(), port);
}

Result<Cidr> Cidr::parse(std::string_view text) {
  auto slash = text.find('/');
  if (slash == std::string_view::npos)
    return fail("'{}' is not a CIDR: write the prefix length, as in 10.0.0.0/24", text);
  auto address = Address::parse(text.substr(0, slash));
  if (!address) return context(std::move(address).error(), fmt::format("'{}' is not a CIDR", text));
  auto digits = text.substr(slash + 1);
  unsigned prefix = 0;
  auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), prefix);
  bool mapped = address->is_v4() && text.find(':') == std::string_view::npos;
  unsigned limit = mapped ? 32 : 128;
  if (code != std::errc{} || end != digits.data() + digits.size() || prefix > limit)
    return fail("'{}' is not a CIDR: the prefix length must be 0 to {}", text, limit);
  if (mapped) prefix += 96;
  if (masked(*address, prefix) != *address)
    return fail("'{}' is not a CIDR: host bits are set, did you mean {}?", text,
                Cidr(masked(*address, prefix), prefix).to_string());
  return Cidr(*address, prefix);
}

bool Cidr::contains(const Address& address) const { return masked(address, prefix_) == base_; }

bool Cidr::overlaps(const Cidr& other) const {
  return prefix_ <= other.prefix_ ? contains(other.base_) : other.contains(base_);
}

std::string Cidr::to_string() const {
  return fmt::format("{}/{}", base_.to_string(), is_v4() ? prefix_ - 96 : prefix_);
}

SockAddr::SockAddr(const Endpoint& endpoint) {
  if (endpoint.address.is_v4()) {
    auto* in = reinterpret_cast<sockaddr_in*>(&storage);
    in->sin_family = AF_INET;
    in->sin_port = htons(endpoint.port);
    std::memcpy(&in->sin_addr, endpoint.address.bytes().data() + 12, 4);
    length = sizeof *in;
  } else {
    auto* in6 = reinterpret_cast<sockaddr_in6*>(&storage);
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(endpoint.port);
    std::memcpy(&in6->sin6_addr, endpoint.address.bytes().data(), 16);
    length = sizeof *in6;
  }
}

Endpoint endpoint_of(const sockaddr_storage& storage) {
  if (storage.ss_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(storage);
    return {Address::from_v4(in.sin_addr.s_addr), ntohs(in.sin_port)};
  }
  if (storage.ss_family == AF_INET6) {
    const auto& in6 = reinterpret_cast<const sockaddr_in6&>(storage);
    std::array<std::uint8_t, 16> bytes;
    std::memcpy(bytes.data(), &in6.sin6_addr, bytes.size());
    return {Address(bytes), ntohs(in6.sin6_port)};
  }
  return {};
}

Result<Endpoint> local_endpoint(int fd) {
  SockAddr a;
  a.length = sizeof a.storage;
  if (::getsockname(fd, a.get(), &a.length) != 0) return fail_errno(errno, "getsockname");
  return endpoint_of(a.storage);
}

Result<Endpoint> peer_endpoint(int fd) {
  SockAddr a;
  a.length = sizeof a.storage;
  if (::getpeername(fd, a.get(), &a.length) != 0) return fail_errno(errno, "getpeername");
  return endpoint_of(a.storage);
}

}  // namespace mesh
