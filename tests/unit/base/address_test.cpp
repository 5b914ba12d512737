// SPDX-License-Identifier: Apache-2.0
#include "agent/base/address.h"

#include <gtest/gtest.h>

namespace mesh {
namespace {

TEST(Address, PrintsMappedAsIpv4) {
  auto a = Address::parse("::ffff:10.0.0.7");
  ASSERT_TRUE(a);
  EXPECT_TRUE(a->is_v4());
  EXPECT_EQ(a->to_string(), "10.0.0.7");
  EXPECT_EQ(*a, *Address::parse("10.0.0.7"));
}

TEST(Address, RefusesTextBehindANul) {
  using namespace std::string_view_literals;
  EXPECT_FALSE(Address::parse("10.0.0.1\0.evil"sv));
  EXPECT_FALSE(Address::parse("fd00::1\0"sv));
  EXPECT_FALSE(Cidr::parse("10.0.0.0\0x/24"sv));
}

TEST(Address, KnowsLoopback) {
  EXPECT_TRUE(Address::parse("127.8.9.1")->is_loopback());
  EXPECT_TRUE(Address::parse("::1")->is_loopback());
  EXPECT_FALSE(Address::parse("10.0.0.1")->is_loopback());
  EXPECT_FALSE(Address::parse("::2")->is_loopback());
}

TEST(Cidr, RefusesWhatIsNotOne) {
  for (const char* text : {"10.0.0.0", "10.0.0.0/33", "10.0.0/24", "x/8", "10.0.0.0/", "fd00::/129",
                           "10.0.0.0/-1", "10.0.0.0/8x", "/8", "10.0.0.1/24"})
    EXPECT_FALSE(Cidr::parse(text)) << text;
}

TEST(Cidr, SuggestsTheBaseWhenHostBitsAreSet) {
  auto c = Cidr::parse("10.0.0.9/24");
  ASSERT_FALSE(c);
  EXPECT_NE(c.error().what.find("10.0.0.0/24"), std::string::npos) << c.error().what;
}

TEST(Cidr, ContainsAndOverlaps) {
  auto v4 = *Cidr::parse("10.0.0.0/25");
  EXPECT_TRUE(v4.contains(*Address::parse("10.0.0.127")));
  EXPECT_FALSE(v4.contains(*Address::parse("10.0.0.128")));
  EXPECT_TRUE(v4.overlaps(*Cidr::parse("10.0.0.0/8")));
  EXPECT_FALSE(v4.overlaps(*Cidr::parse("10.0.0.128/25")));
  EXPECT_FALSE(Cidr::parse("fd00::/64")->contains(*Address::parse("10.0.0.1")));
  EXPECT_EQ(Cidr::parse("fd00:1::/64")->to_string(), "fd00:1::/64");
  EXPECT_TRUE(Cidr::parse("0.0.0.0/0")->contains(*Address::parse("1.2.3.4")));
}

TEST(SockAddr, RoundTrips) {
  for (const char* text : {"10.1.2.3", "fd00::5"}) {
    Endpoint e{*Address::parse(text), 8080};
    EXPECT_EQ(endpoint_of(SockAddr(e).storage), e);
  }
}

}  // namespace
}  // namespace mesh
