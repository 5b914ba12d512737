// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/vip.h"

#include <arpa/inet.h>

#include <algorithm>
#include <set>

namespace mesh::catalog {
namespace {

constexpr std::uint32_t kFirst = 0xf0000001;  // 240.0.0.1
constexpr std::uint32_t kLast = 0xfeffffff;   // 254.255.255.255
constexpr std::uint32_t kCount = kLast - kFirst + 1;
static_assert(kCount > VipAllocator::kMaxRemembered, "place() must always find a free VIP");

std::uint32_t host_order(const Address& v4) {
  std::uint32_t value = 0;
  std::memcpy(&value, v4.bytes().data() + 12, sizeof value);
  return ntohl(value);
}

}  // namespace

Result<VipAllocator> VipAllocator::create(const Cidr& prefix6) {
  bool ula = (prefix6.base().bytes()[0] & 0xfe) == 0xfc;
  if (prefix6.is_v4() || prefix6.mapped_prefix() != 96 || !ula)
    return fail("'{}' cannot hold virtual IPs: expected a /96 of fc00::/7, as in {}",
                prefix6.to_string(), kDefaultVipPrefix6);
  return VipAllocator(prefix6);
}

VipAllocator VipAllocator::with_default_prefix() {
  return VipAllocator(*Cidr::parse(kDefaultVipPrefix6));  // a constant, parsed by a test
}

std::uint32_t VipAllocator::preferred(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a, 64 bit
  for (char c : name) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 0x100000001b3;
  }
  return kFirst + static_cast<std::uint32_t>(hash % kCount);
}

bool VipAllocator::is_assignable(const Address& v4) {
  if (!v4.is_v4()) return false;
  std::uint32_t value = host_order(v4);
  return value >= kFirst && value <= kLast;
}

Vip VipAllocator::vip_of(std::uint32_t v4) const {
  Vip vip{Address::from_v4(htonl(v4)), {}};
  auto bytes = prefix6_.base().bytes();
  std::copy(vip.v4.bytes().begin() + 12, vip.v4.bytes().end(), bytes.begin() + 12);
  vip.v6 = Address(bytes);
  return vip;
}

Status VipAllocator::seed(std::string_view name, const Address& v4) {
  if (!is_assignable(v4))
    return fail(
        "'{}' cannot be the virtual IP of service '{}': expected one of 240.0.0.1 to "
        "254.255.255.255",
        v4.to_string(), name);
  std::uint32_t value = host_order(v4);
  auto known = by_name_.find(name);
  if (known != by_name_.end() && known->second == value) return {};
  if (known != by_name_.end())
    return fail("service '{}' has the virtual IP {} already", name,
                vip_of(known->second).v4.to_string());
  if (auto taken = by_vip_.find(value); taken != by_vip_.end())
    return fail("{} is the virtual IP of service '{}', not of '{}'", v4.to_string(), taken->second,
                name);
  if (by_name_.size() >= kMaxRemembered)
    return fail("more than {} virtual IPs to remember", kMaxRemembered);
  by_name_.emplace(name, value);
  by_vip_.emplace(value, name);
  return {};
}

std::map<std::string, Address> VipAllocator::assignments() const {
  std::map<std::string, Address> all;
  for (const auto& [name, value] : by_name_) all.emplace(name, vip_of(value).v4);
  return all;
}

std::uint32_t VipAllocator::place(const std::string& name) {
  std::uint32_t value = preferred(name);
  while (by_vip_.contains(value)) value = value == kLast ? kFirst : value + 1;
  by_name_.emplace(name, value);
  by_vip_.emplace(value, name);
  return value;
}

std::vector<Vip> VipAllocator::assign(const std::vector<std::string>& names) {
  std::set<std::string_view> current(names.begin(), names.end());
  std::vector<std::string> fresh;
  for (auto name : current)
    if (by_name_.find(name) == by_name_.end()) fresh.emplace_back(name);
  if (by_name_.size() + fresh.size() > kMaxRemembered) {
    std::erase_if(by_name_, [&](const auto& entry) { return !current.contains(entry.first); });
    std::erase_if(by_vip_, [&](const auto& entry) { return !current.contains(entry.second); });
  }
  for (const auto& name : fresh) (void)place(name);
  std::vector<Vip> vips;
  vips.reserve(names.size());
  for (const auto& name : names) vips.push_back(vip_of(by_name_.find(name)->second));
  return vips;
}

}  // namespace mesh::catalog
