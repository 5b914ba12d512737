// SPDX-License-Identifier: Apache-2.0
// Virtual IPs: which address stands for which service name. README.md states the rule.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "agent/base/address.h"
#include "agent/base/result.h"

namespace mesh::catalog {

inline constexpr std::string_view kDefaultVipPrefix6 = "fd6d:6573:6800::/96";

struct Vip {
  Address v4;
  Address v6;
  bool operator==(const Vip&) const = default;
};

// Not thread-safe: one owner. Assignments of names that went away are remembered, so that a service
// that comes back has its VIP again and no other service inherits it while clients still use it.
class VipAllocator {
 public:
  // Beyond this, names that the current catalog does not have are forgotten.
  static constexpr std::size_t kMaxRemembered = 65'536;

  // `prefix6` must be a /96 of fc00::/7.
  static Result<VipAllocator> create(const Cidr& prefix6);
  static VipAllocator with_default_prefix();

  // Takes over an assignment of an earlier run. Refuses an address that no service may have, one
  // that another name has, and a second address for a name.
  Status seed(std::string_view name, const Address& v4);

  // VIPs for exactly these names, in their order. Known names keep theirs; new ones are placed in
  // the order of the alphabet, so the result does not depend on the order of `names`.
  std::vector<Vip> assign(const std::vector<std::string>& names);

  [[nodiscard]] const Cidr& prefix6() const { return prefix6_; }
  [[nodiscard]] std::size_t remembered() const { return by_name_.size(); }
  // Every assignment that is remembered: name and IPv4 VIP.
  [[nodiscard]] std::map<std::string, Address> assignments() const;

  // Where the search for a free VIP of a name begins: 32 bits, host byte order.
  static std::uint32_t preferred(std::string_view name);
  // 240.0.0.1 to 254.255.255.255.
  static bool is_assignable(const Address& v4);

 private:
  explicit VipAllocator(const Cidr& prefix6) : prefix6_(prefix6) {}
  [[nodiscard]] Vip vip_of(std::uint32_t v4) const;
  std::uint32_t place(const std::string& name);

  Cidr prefix6_;
  std::map<std::string, std::uint32_t, std::less<>> by_name_;  // host byte order
  std::unordered_map<std::uint32_t, std::string> by_vip_;
};

}  // namespace mesh::catalog
