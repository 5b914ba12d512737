// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>

#include "tests/unit/http1/cases.h"
#include "tests/unit/http1/sniffer.h"

namespace mesh::test {

namespace {

using testing::ElementsAre;
using testing::IsEmpty;

void check(const Case& c, Sniffer& s, const std::string& how) {
  SCOPED_TRACE(how);
  EXPECT_EQ(s.reported, c.reported);
  EXPECT_EQ(s.events, c.events);
  s.reported.clear();
  s.finish();
  EXPECT_EQ(s.reported, c.at_close);
  s.finish();
  EXPECT_EQ(s.reported.size(), c.at_close.size());
}

class Http1 : public testing::TestWithParam<Case> {};

// Feeds every piece in packets of n bytes; the first one of each is shorter by `shift`.
void feed_in(Sniffer& s, const Case& c, std::size_t n) {
  for (const Piece& piece : c.pieces)
    for (std::size_t at = 0; at < piece.bytes.size(); at += n)
      s.send(piece.side, std::string_view(piece.bytes).substr(at, n));
}

TEST_P(Http1, InWholePackets) {
  for (bool is_client : {true, false}) {
    Sniffer s(1, 1, is_client);
    feed_in(s, GetParam(), std::size_t{1} << 20);
    check(GetParam(), s, is_client ? "client" : "server");
  }
}

TEST_P(Http1, InPacketsOfEverySize) {
  for (std::size_t n = 1; n <= 300; ++n) {
    for (bool has_head : {true, false}) {
      Sniffer s;
      s.has_head = has_head;
      feed_in(s, GetParam(), n);
      check(GetParam(), s, "packets of " + std::to_string(n) + (has_head ? "" : ", general path"));
      if (HasFailure()) return;
    }
  }
}

TEST_P(Http1, SplitAtEveryByte) {
  for (std::size_t p = 0; p < GetParam().pieces.size(); ++p) {
    for (std::size_t at = 1; at < GetParam().pieces[p].bytes.size(); ++at) {
      Sniffer s;
      for (std::size_t i = 0; i < GetParam().pieces.size(); ++i) {
        const Piece& piece = GetParam().pieces[i];
        const std::string_view bytes = piece.bytes;
        s.send(piece.side, bytes.substr(0, i == p ? at : bytes.size()));
        if (i == p) s.send(piece.side, bytes.substr(at));
      }
      check(GetParam(), s, "piece " + std::to_string(p) + " split at " + std::to_string(at));
      if (HasFailure()) return;
    }
  }
}

// Every packet twice, and every packet begins with bytes that were in the one before; sequence
// numbers wrap.
TEST_P(Http1, WithDuplicatesAndOverlaps) {
  for (std::size_t n : {1, 2, 7, 16, 33, 100, 250}) {
    for (std::size_t overlap : {0, 1, 5, 40}) {
      Sniffer s(0xffffffff - 20, 0xffffffff - 3);
      std::string seen[2];
      for (const Piece& piece : GetParam().pieces) {
        std::string& before = seen[static_cast<int>(piece.side)];
        for (std::size_t at = 0; at < piece.bytes.size(); at += n) {
          before += piece.bytes.substr(at, n);
          const std::size_t len = std::min(piece.bytes.size() - at, n) + overlap;
          const std::size_t from = before.size() - std::min(before.size(), len);
          s.packet(piece.side, from, std::string_view(before).substr(from));
          s.packet(piece.side, from, std::string_view(before).substr(from));
          s.packet(piece.side, 0, std::string_view(before).substr(0, before.size() / 2));
        }
      }
      check(GetParam(), s,
            "packets of " + std::to_string(n) + ", overlap " + std::to_string(overlap));
      if (HasFailure()) return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, Http1, testing::ValuesIn(cases()),
                         [](const auto& param) { return std::string(param.param.name); });

TEST(Http1State, TimesARequestFromItsFirstByteToTheLastOfItsResponse) {
  Sniffer s;
  s.now = 1'000'000;
  s.send(kReq, kGet.substr(0, 1));
  s.now += 5;
  s.send(kReq, kGet.substr(1));
  s.now += 70;
  s.send(kResp, kOk.substr(0, kOk.size() - 1));
  s.now += 900;
  EXPECT_THAT(s.reported, IsEmpty());
  s.send(kResp, kOk.substr(kOk.size() - 1));
  ASSERT_EQ(s.reported.size(), 1u);
  EXPECT_EQ(s.reported[0].ns, 975u);
}

TEST(Http1State, TimesAResponseUntilCloseByItsLastByte) {
  Sniffer s;
  s.send(kReq, kGet);
  s.now += 10;
  s.send(kResp, "HTTP/1.0 200 OK\r\n\r\nabc");
  s.now += 10;
  s.send(kResp, "def");
  s.now += 1000;
  s.finish();
  ASSERT_EQ(s.reported.size(), 1u);
  EXPECT_EQ(s.reported[0].ns, 20u);
}

TEST(Http1State, AClockThatRunsBackGivesZero) {
  Sniffer s;
  s.send(kReq, kGet);
  s.now -= 10;
  s.send(kResp, kOk);
  ASSERT_EQ(s.reported.size(), 1u);
  EXPECT_EQ(s.reported[0].ns, 0u);
}

TEST(Http1State, AGapEndsIt) {
  for (Side side : {kReq, kResp}) {
    Sniffer s;
    s.send(kReq, kGet);
    s.packet(side, side == kReq ? kGet.size() + 1 : 1, "x");
    EXPECT_THAT(s.events, ElementsAre(MESH_EVENT_HTTP_GAP));
    s.send(kResp, kOk);
    s.finish();
    EXPECT_THAT(s.reported, IsEmpty());
    EXPECT_EQ(s.events.size(), 1u);
  }
}

// Where a body goes on is known without its bytes: packets of a large one that overtake each other
// cost nothing. What comes late was passed over.
TEST(Http1State, AGapInsideABodyIsPassedOver) {
  const std::string length = "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n";
  const std::string chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1e\r\n";
  const std::string until_close = "HTTP/1.1 200 OK\r\n\r\n";
  for (const std::string& head : {length, chunk, until_close}) {
    const std::string message =
        head + std::string(30, 'b') + (head == chunk ? "\r\n0\r\n\r\n" : "");
    const auto part = [&](std::size_t from, std::size_t size = std::string::npos) {
      return std::string_view(message).substr(head.size() + from, size);
    };
    Sniffer s;
    s.send(kReq, kGet);
    s.packet(kResp, 0, message.substr(0, head.size() + 5));
    s.packet(kResp, head.size() + 20, part(20, 5));
    s.packet(kResp, head.size() + 5, part(5, 15));
    s.packet(kResp, head.size() + 29, part(29));  // behind it nothing but the end
    s.packet(kResp, head.size() + 25, part(25, 4));
    EXPECT_THAT(s.events, IsEmpty()) << head;
    s.finish();
    EXPECT_THAT(s.reported, ElementsAre(Reported{MESH_METHOD_GET, 200})) << head;
  }
}

// The first byte that is seen again must be inside the body: where the next message begins is known
// only then.
TEST(Http1State, AGapUpToTheEndOfABodyEndsIt) {
  const std::string length = "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n";
  const std::string chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1e\r\n";
  for (const std::string& head : {length, chunk}) {
    Sniffer s;
    s.send(kReq, kGet);
    s.packet(kResp, 0, head + "b");
    s.packet(kResp, head.size() + 30, head == chunk ? "\r\n0\r\n\r\n" : kOk);
    EXPECT_THAT(s.events, ElementsAre(MESH_EVENT_HTTP_GAP)) << head;
    EXPECT_THAT(s.reported, IsEmpty()) << head;
  }
}

TEST(Http1State, APacketThatCannotBeReadEndsIt) {
  Sniffer s;
  s.load_fails = true;
  s.send(kReq, kGet);
  EXPECT_THAT(s.events, ElementsAre(MESH_EVENT_HTTP_GAP));
  EXPECT_FALSE(s.active());
}

TEST(Http1State, ASecondCpuInOneDirectionIsWaitedFor) {
  Sniffer s;
  s.state.dir[MESH_HTTP1_REQUEST].lock = 1;
  tries_left = 100;
  s.send(kReq, kGet);
  s.send(kResp, kOk);
  EXPECT_THAT(s.events, IsEmpty());
  EXPECT_THAT(s.reported, ElementsAre(Reported{MESH_METHOD_GET, 200}));
  EXPECT_EQ(s.state.dir[MESH_HTTP1_REQUEST].lock, 0u);
}

TEST(Http1State, ASecondCpuThatStaysEndsIt) {
  Sniffer s;
  s.state.dir[MESH_HTTP1_REQUEST].lock = 1;
  s.send(kReq, kGet);
  EXPECT_THAT(s.events, ElementsAre(MESH_EVENT_HTTP_BUSY));
  EXPECT_FALSE(s.active());
}

TEST(Http1State, TheOtherDirectionIsNotLocked) {
  Sniffer s;
  s.send(kReq, kGet);
  s.state.dir[MESH_HTTP1_REQUEST].lock = 1;
  s.send(kResp, kOk);
  EXPECT_THAT(s.reported, ElementsAre(get(200)));
  EXPECT_THAT(s.events, IsEmpty());
}

TEST(Http1State, NothingIsLookedAtBeforeInit) {
  Sniffer s;
  s.state = {};
  s.send(kReq, kGet);
  s.finish();
  EXPECT_THAT(s.events, IsEmpty());
  EXPECT_THAT(s.reported, IsEmpty());
  EXPECT_EQ(s.loaded, 0u);
}

TEST(Http1State, InitStartsAgainFromNothing) {
  Sniffer s;
  s.send(kReq, kGet + "GET /half");
  s.send(kResp, "HTTP/1.1 200 OK\r\nContent-Le");
  const mesh_http1 fresh = Sniffer(7, 9).state;
  s.state = Sniffer(7, 9).state;
  EXPECT_EQ(s.state.head, fresh.head);
  EXPECT_EQ(s.state.dir[MESH_HTTP1_RESPONSE].carry_len, 0);
  EXPECT_EQ(s.state.dir[MESH_HTTP1_REQUEST].next_seq, 7u);
  EXPECT_EQ(s.state.dir[MESH_HTTP1_RESPONSE].next_seq, 9u);
}

TEST(Http1State, BodiesAreNotLoaded) {
  Sniffer s;
  s.send(kReq, kGet);
  s.send(kResp, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
  const std::size_t loaded = s.loaded;
  const std::size_t clock_reads = s.clock_reads;
  const std::string part(50'000, 'z');
  for (int i = 0; i < 19; ++i) s.send(kResp, part);
  EXPECT_EQ(s.clock_reads, clock_reads);
  s.send(kResp, part);
  EXPECT_EQ(s.loaded, loaded);
  EXPECT_THAT(s.reported, ElementsAre(get(200)));
}

// The common case is one load of a head, and nothing of it is left to the general path.
TEST(Http1State, AHeadIsLoadedOnce) {
  Sniffer s;
  s.send(kReq, kGet);
  EXPECT_EQ(s.loaded, kGet.size());
  s.send(kResp, kOk);
  EXPECT_EQ(s.loaded, kGet.size() + kOk.size());
  EXPECT_EQ(s.clock_reads, 2u);
  EXPECT_THAT(s.reported, ElementsAre(get(200)));
  EXPECT_EQ(s.head.lock, 0u);
}

// No more is copied of a long message than its head needs.
TEST(Http1State, AHeadIsLoadedAsFarAsItGoes) {
  const auto head = [](std::size_t size) {
    const std::string begin = "POST / HTTP/1.1\r\nContent-Length: 5000\r\nX: ";
    return begin + std::string(size - begin.size() - 4, 'x') + "\r\n\r\n";
  };
  for (const auto& [size, loaded] : std::vector<std::pair<std::size_t, std::size_t>>{
           {100, 128}, {128, 128}, {129, 384}, {384, 384}, {385, 512}, {512, 512}}) {
    Sniffer s;
    s.send(kReq, head(size) + std::string(1000, 'y'));
    EXPECT_EQ(s.loaded, loaded) << size;
    EXPECT_EQ(s.state.dir[MESH_HTTP1_REQUEST].remaining, 4000u) << size;
  }
}

TEST(Http1State, ABufferInUseLeavesItToTheGeneralPath) {
  Sniffer s;
  s.head.lock = 1;
  s.send(kReq, kGet);
  s.send(kResp, kOk);
  EXPECT_THAT(s.reported, ElementsAre(get(200)));
  EXPECT_EQ(s.head.lock, 1u);
  EXPECT_EQ(s.head.bytes[0], 0);
}

// Both ways to look at a packet give the same state, so that either may take the next one.
TEST_P(Http1, BothPathsEndInTheSameState) {
  Sniffer fast, general;
  general.has_head = false;
  for (const Piece& piece : GetParam().pieces) {
    fast.send(piece.side, piece.bytes);
    general.send(piece.side, piece.bytes);
    EXPECT_EQ(fast.reported, general.reported);
    EXPECT_EQ(fast.events, general.events);
    EXPECT_EQ(fast.state.status, general.state.status);
    EXPECT_EQ(fast.state.head, general.state.head);
    EXPECT_EQ(fast.state.tail, general.state.tail);
    if (!fast.active()) break;
    for (int i = 0; i < MESH_HTTP1_INFLIGHT; ++i)
      EXPECT_EQ(fast.state.method[i], general.state.method[i]);
    for (int side = 0; side < 2; ++side) {
      const mesh_http1_dir& a = fast.state.dir[side];
      const mesh_http1_dir& b = general.state.dir[side];
      EXPECT_EQ(a.next_seq, b.next_seq);
      EXPECT_EQ(a.phase, b.phase);
      EXPECT_EQ(a.line, b.line);
      EXPECT_EQ(a.flags, b.flags);
      EXPECT_EQ(a.carry_len, b.carry_len);
      if (a.phase >= MESH_HTTP1_BODY) {
        EXPECT_EQ(a.remaining, b.remaining);
        EXPECT_EQ(a.code, b.code);
      }
    }
  }
}

// As many tiny chunks as a merged packet can hold are too many; an event says so.
TEST(Http1State, WorkInOnePacketIsBounded) {
  const std::string head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  Sniffer s;
  s.send(kReq, kGet);
  s.send(kResp, head + repeat("1\r\na\r\n", 10'000));
  EXPECT_THAT(s.events, ElementsAre(MESH_EVENT_HTTP_LIMIT));
  Sniffer in_bounds;
  in_bounds.send(kReq, kGet);
  in_bounds.send(kResp, head + repeat("a\r\n0123456789\r\n", 4'000) + "0\r\n\r\n");
  EXPECT_THAT(in_bounds.events, IsEmpty());
  EXPECT_THAT(in_bounds.reported, ElementsAre(get(200)));
}

TEST(Http1State, ABigMergedPacketOfRequestsAndResponsesInTurn) {
  Sniffer s;
  for (int i = 0; i < 1000; ++i) {
    s.send(kReq, repeat(kGet, 8));
    s.send(kResp, repeat(kOk, 8));
  }
  EXPECT_EQ(s.reported.size(), 8000u);
  EXPECT_THAT(s.events, IsEmpty());
}

}  // namespace
}  // namespace mesh::test
