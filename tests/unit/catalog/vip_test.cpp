// SPDX-License-Identifier: Apache-2.0
// The VIP rule: stable, in range, and a collision never moves anybody.
#include "agent/catalog/vip.h"

#include <gtest/gtest.h>

#include <arpa/inet.h>

#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <set>

namespace mesh::catalog {
namespace {

Address ip(std::string_view text) { return *Address::parse(text); }

Address v4_of(std::uint32_t host_order) { return Address::from_v4(htonl(host_order)); }

std::vector<std::string> names(int count) {
  std::vector<std::string> out;
  for (int i = 0; i < count; ++i) out.push_back(fmt::format("service-{}", i));
  return out;
}

// Two names that want the same VIP, found by search (a birthday over 2^28 needs some 20,000 names).
std::pair<std::string, std::string> colliding_names() {
  std::map<std::uint32_t, std::string> seen;
  for (int i = 0; i < 10'000'000; ++i) {
    auto name = fmt::format("c{}", i);
    auto [it, fresh] = seen.emplace(VipAllocator::preferred(name), name);
    if (!fresh) return {it->second, name};
  }
  return {};
}

TEST(Vip, TheHashIsTheDocumentedOne) {
  // FNV-1a 64: "" is 0xcbf29ce484222325, "a" is 0xaf63dc4c8601ec8c (the authors' test vectors).
  constexpr std::uint64_t kCount = 0xfeffffffu - 0xf0000001u + 1;
  EXPECT_EQ(VipAllocator::preferred(""), 0xf0000001u + 0xcbf29ce484222325u % kCount);
  EXPECT_EQ(VipAllocator::preferred("a"), 0xf0000001u + 0xaf63dc4c8601ec8cu % kCount);
}

TEST(Vip, DoesNotChangeBetweenReleases) {
  auto vips = VipAllocator::with_default_prefix();
  auto assigned = vips.assign({"web", "api"});
  EXPECT_EQ(assigned[0].v4.to_string(), "241.112.15.252");
  EXPECT_EQ(assigned[0].v6.to_string(), "fd6d:6573:6800::f170:ffc");
  EXPECT_EQ(assigned[1].v4.to_string(), "250.34.40.49");
}

TEST(Vip, TheV6VipIsThePrefixAndTheSame32Bits) {
  auto vips = VipAllocator::create(*Cidr::parse("fdaa:bbbb:cccc:dddd:eeee:ffff::/96"));
  ASSERT_TRUE(vips) << vips.error().what;
  ASSERT_TRUE(vips->seed("web", ip("241.2.3.4")));
  EXPECT_EQ(vips->assign({"web"})[0],
            (Vip{ip("241.2.3.4"), ip("fdaa:bbbb:cccc:dddd:eeee:ffff:f102:304")}));
}

TEST(Vip, RefusesAPrefixThatIsNotAUla96) {
  for (auto text :
       {"fd00::/64", "fd00::/97", "2001:db8::/96", "10.0.0.0/8", "::ffff:0:0/96", "::/96"}) {
    auto cidr = Cidr::parse(text);
    ASSERT_TRUE(cidr) << text;
    EXPECT_FALSE(VipAllocator::create(*cidr)) << text;
  }
  EXPECT_TRUE(VipAllocator::create(*Cidr::parse(kDefaultVipPrefix6)));
  EXPECT_TRUE(VipAllocator::create(*Cidr::parse("fc00::/96")));
}

TEST(Vip, EveryVipIsUniqueAndInRange) {
  auto vips = VipAllocator::with_default_prefix();
  auto all = names(10'000);
  std::set<Address> seen;
  for (const auto& vip : vips.assign(all)) {
    EXPECT_TRUE(VipAllocator::is_assignable(vip.v4)) << vip.v4.to_string();
    EXPECT_TRUE(vips.prefix6().contains(vip.v6));
    EXPECT_TRUE(seen.insert(vip.v4).second) << vip.v4.to_string();
  }
  EXPECT_FALSE(VipAllocator::is_assignable(ip("240.0.0.0")));
  EXPECT_TRUE(VipAllocator::is_assignable(ip("240.0.0.1")));
  EXPECT_TRUE(VipAllocator::is_assignable(ip("254.255.255.255")));
  for (auto bad : {"255.0.0.0", "255.255.255.255", "239.255.255.255", "10.0.0.1", "fd00::1", "::"})
    EXPECT_FALSE(VipAllocator::is_assignable(ip(bad))) << bad;
}

TEST(Vip, ProbingWrapsWithinTheRange) {
  auto vips = VipAllocator::with_default_prefix();
  std::string last_name;
  for (int i = 0; i < 200'000'000 && last_name.empty(); ++i) {
    auto name = fmt::format("{:x}", i);
    if (VipAllocator::preferred(name) >= 0xfeffff00u) last_name = name;
  }
  ASSERT_NE(last_name, "");
  for (std::uint32_t v = VipAllocator::preferred(last_name); v <= 0xfeffffffu; ++v)
    ASSERT_TRUE(vips.seed(fmt::format("taken-{:x}", v), v4_of(v)));
  EXPECT_EQ(vips.assign({last_name})[0].v4, ip("240.0.0.1"));
}

TEST(Vip, IndependentOfOrderAndOfOtherServices) {
  auto all = names(2000);
  auto reference_allocator = VipAllocator::with_default_prefix();
  auto reference = reference_allocator.assign(all);
  std::mt19937 random(1);
  for (int round = 0; round < 20; ++round) {
    auto shuffled = all;
    std::shuffle(shuffled.begin(), shuffled.end(), random);
    auto vips = VipAllocator::with_default_prefix();
    auto assigned = vips.assign(shuffled);
    for (std::size_t i = 0; i < all.size(); ++i) {
      auto at = std::find(all.begin(), all.end(), shuffled[i]) - all.begin();
      EXPECT_EQ(assigned[i], reference[static_cast<std::size_t>(at)]) << shuffled[i];
    }
    // Alone, a service has the same VIP as among 2000 (these names do not collide).
    auto alone = VipAllocator::with_default_prefix();
    EXPECT_EQ(alone.assign({shuffled[0]})[0], assigned[0]);
  }
}

TEST(Vip, RandomAddingAndRemovingMovesNobody) {
  auto [a, b] = colliding_names();
  ASSERT_NE(a, "");
  auto all = names(200);
  all.push_back(a);
  all.push_back(b);
  std::mt19937 random(2);
  auto vips = VipAllocator::with_default_prefix();
  std::map<std::string, Vip> first_seen;
  for (int round = 0; round < 500; ++round) {
    std::vector<std::string> some;
    for (const auto& name : all)
      if (random() % 2 == 0) some.push_back(name);
    std::shuffle(some.begin(), some.end(), random);
    auto assigned = vips.assign(some);
    std::set<Address> unique;
    for (std::size_t i = 0; i < some.size(); ++i) {
      auto [it, fresh] = first_seen.emplace(some[i], assigned[i]);
      EXPECT_EQ(it->second, assigned[i]) << some[i] << " moved in round " << round;
      EXPECT_TRUE(unique.insert(assigned[i].v4).second);
    }
  }
}

TEST(Vip, ACollisionNeverMovesTheServiceThatWasThere) {
  auto [a, b] = colliding_names();
  ASSERT_NE(a, "");
  std::uint32_t wanted = VipAllocator::preferred(a);
  for (const auto& [first, second] : {std::pair{a, b}, std::pair{b, a}}) {
    auto before = VipAllocator::with_default_prefix();
    EXPECT_EQ(before.assign({first})[0].v4, v4_of(wanted));
    auto both = before.assign({first, second});
    EXPECT_EQ(both[0].v4, v4_of(wanted));
    EXPECT_EQ(both[1].v4, v4_of(wanted + 1));

    // After a restart the seeds decide, not the order of the alphabet.
    auto after = VipAllocator::with_default_prefix();
    ASSERT_TRUE(after.seed(second, both[1].v4));
    ASSERT_TRUE(after.seed(first, both[0].v4));
    EXPECT_EQ(after.assign({second, first}), (std::vector<Vip>{both[1], both[0]}));
    // Even if the one with the better right is gone.
    auto alone = VipAllocator::with_default_prefix();
    ASSERT_TRUE(alone.seed(second, both[1].v4));
    EXPECT_EQ(alone.assign({second})[0], both[1]);
    // And a newcomer does not take the VIP of a service that is away.
    auto away = VipAllocator::with_default_prefix();
    (void)away.assign({first});
    (void)away.assign({});
    EXPECT_EQ(away.assign({second})[0].v4, v4_of(wanted + 1));
  }
}

TEST(Vip, RefusesBadSeeds) {
  auto vips = VipAllocator::with_default_prefix();
  EXPECT_FALSE(vips.seed("a", ip("240.0.0.0")));
  EXPECT_FALSE(vips.seed("a", ip("255.0.0.1")));
  EXPECT_FALSE(vips.seed("a", ip("10.0.0.1")));
  EXPECT_TRUE(vips.seed("a", ip("240.0.0.9")));
  EXPECT_TRUE(vips.seed("a", ip("240.0.0.9")));    // again: no change
  EXPECT_FALSE(vips.seed("a", ip("240.0.0.10")));  // a second VIP
  EXPECT_FALSE(vips.seed("b", ip("240.0.0.9")));   // of another
  EXPECT_EQ(vips.remembered(), 1u);
}

TEST(Vip, ForgetsAbsentNamesOnlyWhenThereAreTooMany) {
  auto vips = VipAllocator::with_default_prefix();
  auto kept = vips.assign({"kept", "gone"});
  std::vector<std::string> filler;
  for (std::size_t i = 0; vips.remembered() < VipAllocator::kMaxRemembered; ++i)
    (void)vips.assign({"kept", fmt::format("f{}", i)});
  EXPECT_EQ(vips.assign({"gone"})[0], kept[1]);
  EXPECT_FALSE(vips.seed("one-more", ip("240.0.0.9")));
  EXPECT_EQ(vips.assign({"kept", "new"})[0], kept[0]);
  EXPECT_EQ(vips.remembered(), 2u);
}

}  // namespace
}  // namespace mesh::catalog
