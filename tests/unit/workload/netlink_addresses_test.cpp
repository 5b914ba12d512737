// SPDX-License-Identifier: Apache-2.0
// Address messages: the kernel's forms, and every length that lies.
#include "agent/workload/netlink_addresses.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>

#include <cstring>

namespace mesh::workload {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Bytes = std::vector<std::uint8_t>;

constexpr std::uint32_t kSequence = 42;
constexpr std::uint32_t kPort = 7777;

template <typename T>
void append(Bytes& out, const T& value) {
  const auto* raw = reinterpret_cast<const std::uint8_t*>(&value);
  // Byte by byte: GCC 12 sees an overflow in vector::insert here that is none.
  for (std::size_t i = 0; i < sizeof value; ++i) out.push_back(raw[i]);
}

Bytes attribute(std::uint16_t type, const Bytes& data) {
  Bytes out;
  append(out, rtattr{static_cast<std::uint16_t>(sizeof(rtattr) + data.size()), type});
  for (std::uint8_t byte : data) out.push_back(byte);
  out.resize((out.size() + 3) / 4 * 4);
  return out;
}

Bytes raw(int family, const char* text) {
  Bytes bytes(family == AF_INET ? 4 : 16);
  EXPECT_EQ(inet_pton(family, text, bytes.data()), 1);
  return bytes;
}

struct Message {
  std::uint16_t type = RTM_NEWADDR;
  std::uint16_t flags = NLM_F_MULTI;
  std::uint32_t sequence = kSequence;
  std::uint32_t port = kPort;
};

Bytes message(const Message& kind, const Bytes& payload) {
  Bytes out;
  append(out, nlmsghdr{static_cast<std::uint32_t>(sizeof(nlmsghdr) + payload.size()), kind.type,
                       kind.flags, kind.sequence, kind.port});
  for (std::uint8_t byte : payload) out.push_back(byte);
  return out;
}

Bytes address(std::uint8_t family, const std::vector<Bytes>& attributes) {
  Bytes out;
  ifaddrmsg body{};
  body.ifa_family = family;
  append(out, body);
  for (const Bytes& one : attributes)
    for (std::uint8_t byte : one) out.push_back(byte);
  return out;
}

Bytes number(int value) {
  Bytes out;
  append(out, value);
  return out;
}

Bytes operator+(Bytes a, const Bytes& b) {
  for (std::uint8_t byte : b) a.push_back(byte);
  return a;
}

Address at(const char* text) { return Address::parse(text).value(); }

Bytes v4(const char* text) { return address(AF_INET, {attribute(IFA_LOCAL, raw(AF_INET, text))}); }

TEST(AddressDump, CollectsOverSeveralDatagrams) {
  AddressDump dump(kSequence, kPort);
  ASSERT_TRUE(
      dump.feed(message({}, v4("10.0.0.5")) +
                message({}, address(AF_INET6, {attribute(IFA_ADDRESS, raw(AF_INET6, "fd00::5")),
                                               attribute(IFA_FLAGS, number(0x40))}))));
  EXPECT_FALSE(dump.done());
  ASSERT_TRUE(dump.feed(message({}, v4("10.0.0.6"))));
  ASSERT_TRUE(dump.feed(message({NLMSG_DONE}, number(0))));
  EXPECT_TRUE(dump.done());
  EXPECT_FALSE(dump.unsettled());
  EXPECT_THAT(dump.addresses(), ElementsAre(at("10.0.0.5"), at("fd00::5"), at("10.0.0.6")));
}

TEST(AddressDump, TakesTheLocalEndOfAPointToPointLink) {
  AddressDump dump(kSequence, kPort);
  ASSERT_TRUE(
      dump.feed(message({}, address(AF_INET, {attribute(IFA_ADDRESS, raw(AF_INET, "10.0.0.1")),
                                              attribute(IFA_LOCAL, raw(AF_INET, "10.0.0.2"))}))));
  ASSERT_TRUE(dump.feed(
      message({}, address(AF_INET6, {attribute(IFA_LOCAL, raw(AF_INET6, "fd00::2")),
                                     attribute(IFA_ADDRESS, raw(AF_INET6, "fd00::1"))}))));
  EXPECT_THAT(dump.addresses(), ElementsAre(at("10.0.0.2"), at("fd00::2")));
}

TEST(AddressDump, NotificationsOnlyUnsettle) {
  for (const Message& foreign :
       {Message{RTM_NEWADDR, 0, kSequence, 1}, Message{RTM_NEWADDR, 0, 1, kPort},
        Message{RTM_DELADDR, 0, 0, 0}}) {
    AddressDump dump(kSequence, kPort);
    ASSERT_TRUE(dump.feed(message(foreign, v4("10.0.0.9"))));
    EXPECT_THAT(dump.addresses(), IsEmpty());
    EXPECT_TRUE(dump.unsettled());
  }
}

TEST(AddressDump, AnotherDumpsEndIsNotOurs) {
  AddressDump dump(kSequence, kPort);
  ASSERT_TRUE(dump.feed(message({NLMSG_DONE, NLM_F_MULTI, kSequence - 1, kPort}, number(0))));
  EXPECT_FALSE(dump.done());
}

TEST(AddressDump, InterruptedDumpIsUnsettled) {
  AddressDump dump(kSequence, kPort);
  ASSERT_TRUE(dump.feed(message({RTM_NEWADDR, NLM_F_MULTI | NLM_F_DUMP_INTR}, v4("10.0.0.5"))));
  EXPECT_TRUE(dump.unsettled());
}

TEST(AddressDump, ReportsTheKernelsErrors) {
  AddressDump refused(kSequence, kPort);
  auto status = refused.feed(message({NLMSG_ERROR}, number(-EBUSY) + Bytes(sizeof(nlmsghdr))));
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code.value(), EBUSY);
  AddressDump broken(kSequence, kPort);
  status = broken.feed(message({NLMSG_DONE}, number(-ENOMEM)));
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code.value(), ENOMEM);
  EXPECT_FALSE(AddressDump(kSequence, kPort).feed(message({NLMSG_ERROR}, {1, 2})));
}

TEST(AddressDump, SkipsFamiliesItDoesNotKnow) {
  AddressDump dump(kSequence, kPort);
  ASSERT_TRUE(dump.feed(message({}, address(AF_DECnet, {attribute(IFA_LOCAL, {1, 2})}))));
  EXPECT_THAT(dump.addresses(), IsEmpty());
}

TEST(AddressDump, RefusesAddressesOfTheWrongSize) {
  for (std::size_t size : {0u, 3u, 5u, 16u})
    EXPECT_FALSE(AddressDump(kSequence, kPort)
                     .feed(message({}, address(AF_INET, {attribute(IFA_LOCAL, Bytes(size))}))))
        << size;
  EXPECT_FALSE(AddressDump(kSequence, kPort)
                   .feed(message({}, address(AF_INET6, {attribute(IFA_ADDRESS, Bytes(4))}))));
}

// Every prefix of a good datagram, in memory of exactly that size so that the sanitizer sees a
// read beyond it; only whole messages are good.
TEST(AddressDump, RefusesEveryTruncation) {
  Bytes first = message({}, v4("10.0.0.5"));
  Bytes whole = first + message({}, v4("10.0.0.6"));
  for (std::size_t size = 1; size < whole.size(); ++size) {
    Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    cut.shrink_to_fit();
    EXPECT_EQ(AddressDump(kSequence, kPort).feed(cut).has_value(), size == first.size()) << size;
  }
}

// Every 16-bit length field set to every small value: no crash, no read out of bounds, no hang.
TEST(AddressDump, SurvivesEveryLengthThatLies) {
  Bytes good = message({}, address(AF_INET6, {attribute(IFA_ADDRESS, raw(AF_INET6, "fd00::5")),
                                              attribute(IFA_FLAGS, number(0))}));
  for (std::size_t at_byte = 0; at_byte + 1 < good.size(); at_byte += 2) {
    for (unsigned value = 0; value < 128; ++value) {
      Bytes bad = good;
      bad[at_byte] = static_cast<std::uint8_t>(value);
      bad[at_byte + 1] = 0;
      AddressDump dump(kSequence, kPort);
      (void)dump.feed(bad);  // either answer is fine
      EXPECT_LE(dump.addresses().size(), 1u);
    }
  }
}

TEST(AddressRequest, AsksForADumpOfAllFamilies) {
  auto request = address_dump_request(9);
  EXPECT_EQ(request.header.nlmsg_len, 24u);
  EXPECT_EQ(request.header.nlmsg_type, RTM_GETADDR);
  EXPECT_EQ(request.header.nlmsg_flags, NLM_F_REQUEST | NLM_F_DUMP);
  EXPECT_EQ(request.header.nlmsg_seq, 9u);
  EXPECT_EQ(request.body.ifa_family, AF_UNSPEC);
}

}  // namespace
}  // namespace mesh::workload
