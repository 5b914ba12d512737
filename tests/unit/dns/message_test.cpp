// SPDX-License-Identifier: Apache-2.0
#include "agent/dns/message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/dns/limits.h"
#include "tests/unit/dns/wire.h"

namespace mesh::dns {
namespace {

using test::Bytes;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

Address addr(const char* text) { return *Address::parse(text); }

Reply many(std::size_t count) {
  Reply reply;
  for (std::size_t i = 0; i < count; ++i) reply.answers.push_back({"", 0, addr("10.0.0.1")});
  reply.additional.push_back({"extra.consul", 0, addr("10.0.0.2")});
  return reply;
}

TEST(DnsMessage, AQuestionIsReadWithItsSpellingKept) {
  const auto query = read_query(test::question("WeB.Virtual.consul", kTypeA, 4096, 7));
  ASSERT_TRUE(query);
  EXPECT_EQ(query->id, 7);
  EXPECT_TRUE(query->recursion_desired);
  EXPECT_EQ(query->udp_size, 4096);
  EXPECT_THAT(query->question.labels, ElementsAre("web", "virtual", "consul"));
  EXPECT_EQ(query->question.type, kTypeA);
  const auto text = test::read(write_reply(*query, many(1), udp_limit(*query)));
  EXPECT_EQ(text.id, 7);
  EXPECT_EQ(text.rcode, 0);
  EXPECT_TRUE(text.aa);
  EXPECT_TRUE(text.edns);
  EXPECT_THAT(text.answers, ElementsAre("WeB.Virtual.consul. 0 IN A 10.0.0.1"));
  EXPECT_THAT(text.additional, ElementsAre("extra.consul. 0 IN A 10.0.0.2"));
}

TEST(DnsMessage, WhatIsNoQuestionIsDroppedOrRefused) {
  auto answer = test::question("a.consul", kTypeA);
  answer[2] |= 0x80;
  auto update = test::question("a.consul", kTypeA);
  update[2] |= 5 << 3;
  auto none = test::question("a.consul", kTypeA);
  none[5] = 0;
  auto two = test::question("a.consul", kTypeA);
  two[5] = 2;
  auto pointer = test::question("a.consul", kTypeA);
  pointer[kHeader] = 0xc0;
  auto cut = test::question("a.consul", kTypeA);
  cut.erase(cut.end() - 3, cut.end());
  auto trailing_record = test::question("a.consul", kTypeA);
  trailing_record[11] = 1;  // says that there is an additional record
  struct Row {
    const char* what;
    Bytes wire;
    int rcode;  // -1: dropped
  };
  for (const auto& [what, wire, rcode] : {
           Row{"empty", {}, -1},
           Row{"a header cut short", Bytes(kHeader - 1), -1},
           Row{"too long", Bytes(kMaxQuery + 1), -1},
           Row{"an answer", answer, -1},
           Row{"an update", update, 4},
           Row{"no question", none, 1},
           Row{"two questions", two, 1},
           Row{"a name that points", pointer, 1},
           Row{"a question cut short", cut, 1},
           Row{"a record that is not there", trailing_record, 1},
       }) {
    const auto query = read_query(wire);
    ASSERT_FALSE(query) << what;
    const auto& response = query.error().response;
    EXPECT_EQ(response.empty(), rcode < 0) << what;
    if (rcode < 0) continue;
    ASSERT_EQ(response.size(), kHeader) << what;
    EXPECT_TRUE(is_response(response)) << what;
    EXPECT_EQ(id_of(response), 0x1234) << what;
    EXPECT_EQ(response[3], rcode) << what;
  }
}

TEST(DnsMessage, AnAnswerIsCutToWhatTheClientTakes) {
  struct Row {
    std::uint16_t edns;
    std::size_t answers;
    std::size_t limit;
    bool cut;
    bool additional;
  };
  for (const auto& row : {Row{0, 10, 512, false, true}, Row{0, 29, 512, false, false},
                          Row{0, 60, 512, true, false}, Row{100, 60, 512, true, false},
                          Row{900, 40, 900, false, true}, Row{65535, 2000, 1232, true, false}}) {
    const auto query = read_query(test::question("a.service.consul", kTypeA, row.edns));
    ASSERT_TRUE(query);
    EXPECT_EQ(udp_limit(*query), row.limit);
    const auto wire = write_reply(*query, many(row.answers), udp_limit(*query));
    EXPECT_LE(wire.size(), row.limit);
    const auto text = test::read(wire);
    EXPECT_EQ(text.rcode, 0);
    EXPECT_EQ(text.tc, row.cut) << row.answers;
    EXPECT_EQ(text.additional.empty(), !row.additional) << row.answers;
    if (!row.cut)
      EXPECT_EQ(text.answers.size(), row.answers);
    else
      EXPECT_GT(text.answers.size(), row.limit / 16 - 10) << "more would have fitted";
  }
  const auto query = read_query(test::question("a.service.consul", kTypeA));
  const auto whole = test::read(write_reply(*query, many(4000), kMaxMessage));
  EXPECT_EQ(whole.answers.size(), 4000u);
  EXPECT_FALSE(whole.tc);
}

TEST(DnsMessage, NegativeAnswersCarryTheSoa) {
  const auto query = read_query(test::question("no.virtual.consul", kTypeA));
  Reply reply;
  reply.rcode = Rcode::NxDomain;
  reply.soa_of = "consul";
  const auto text = test::read(write_reply(*query, reply, 512));
  EXPECT_EQ(text.rcode, 3);
  EXPECT_THAT(text.answers, IsEmpty());
  EXPECT_THAT(text.authority,
              ElementsAre("consul. 0 IN SOA ns.consul. hostmaster.consul. 1 3600 600 86400 0"));
}

TEST(DnsMessage, AnotherEdnsVersionIsAnsweredWithBadvers) {
  const auto query = read_query(test::question("web.virtual.consul", kTypeA, 1232, 9, 1));
  ASSERT_TRUE(query);
  const auto text = test::read(write_reply(*query, many(3), 1232));
  EXPECT_EQ(text.rcode, 16);
  EXPECT_THAT(text.answers, IsEmpty());
}

TEST(DnsMessage, QuestionsAreComparedByteForByte) {
  const auto a = test::question("a.example", kTypeA, 0, 1);
  EXPECT_TRUE(same_question(a, test::question("a.example", kTypeA, 1232, 2)));
  EXPECT_FALSE(same_question(a, test::question("A.example", kTypeA)));
  EXPECT_FALSE(same_question(a, test::question("a.example", kTypeAaaa)));
  EXPECT_FALSE(same_question(a, test::question("a.example.com", kTypeA)));
  EXPECT_FALSE(same_question(Bytes(kHeader), Bytes(kHeader)));
}

}  // namespace
}  // namespace mesh::dns
