// SPDX-License-Identifier: Apache-2.0
// What a user-space stream makes of records that ours never send.
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "ktls/record_key.h"
#include "ktls/user_stream.h"
#include "tests/unit/tls/foreign_records.h"

namespace mesh::ktls::test {
namespace {

using Bytes = std::vector<std::byte>;

class RecordsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    connected_ = connect(scene_);
    ASSERT_TRUE(connected_);
    forger_.emplace(*connected_->server.stream);
  }
  // Records of the server, read by the client.
  Stream& client() { return *connected_->client.stream; }
  [[nodiscard]] int client_fd() const { return connected_->pair.client.get(); }
  void send(const Bytes& bytes) {
    ASSERT_EQ(::send(connected_->pair.server.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  void expect_failure(int errnum) {
    const Io end = read_end(client(), client_fd());
    EXPECT_EQ(end.kind, Io::Kind::Failed);
    EXPECT_EQ(end.errnum, errnum);
    EXPECT_EQ(read_end(client(), client_fd()).errnum, errnum);  // and stays so
    EXPECT_FALSE(client().buffered());
  }

  Scene scene_;
  std::optional<Connected> connected_;
  std::optional<Forger> forger_;
};

TEST_F(RecordsTest, OneByteAtATime) {
  const Bytes record = forger_->seal(ContentType::ApplicationData, "slow but whole");
  std::byte buffer[64];
  for (std::size_t i = 0; i < record.size(); ++i) {
    ASSERT_EQ(client().read(client_fd(), buffer).kind, Io::Kind::Blocked) << i;
    EXPECT_FALSE(client().buffered());
    send({record[i]});
    ASSERT_TRUE(wait_for(client_fd(), 1));
  }
  EXPECT_EQ(read_some(client(), client_fd(), 14), "slow but whole");
}

TEST_F(RecordsTest, PaddingIsTakenOff) {
  send(forger_->padded(ContentType::ApplicationData, "text", 300));
  EXPECT_EQ(read_some(client(), client_fd(), 4), "text");
  // A full record with all the padding that fits behind it: content and padding share 2^14.
  send(forger_->padded(ContentType::ApplicationData, std::string(kMaxPlain - 100, 'x'), 100));
  EXPECT_EQ(read_some(client(), client_fd(), kMaxPlain - 100), std::string(kMaxPlain - 100, 'x'));
}

TEST_F(RecordsTest, PaddingAloneHasNoType) {
  send(forger_->padded(ContentType::Invalid, "", 20));
  expect_failure(EBADMSG);
}

TEST_F(RecordsTest, EmptyRecordsAreSkippedWithinABound) {
  for (int i = 0; i < 20; ++i) send(forger_->seal(ContentType::ApplicationData, ""));
  send(forger_->seal(ContentType::ApplicationData, "x"));
  EXPECT_EQ(read_some(client(), client_fd(), 1), "x");
  for (int i = 0; i < 33; ++i) send(forger_->seal(ContentType::ApplicationData, ""));
  expect_failure(EPROTO);
}

TEST_F(RecordsTest, TicketsAreSkipped) {
  const std::string ticket = Forger::message(4, std::string(200, 't'));
  send(forger_->seal(ContentType::Handshake, ticket + ticket));
  send(forger_->seal(ContentType::ApplicationData, "a"));
  // Cut across records.
  send(forger_->seal(ContentType::Handshake, ticket.substr(0, 2)));
  send(forger_->seal(ContentType::Handshake, ticket.substr(2)));
  send(forger_->seal(ContentType::ApplicationData, "b"));
  EXPECT_EQ(read_some(client(), client_fd(), 2), "ab");
}

TEST_F(RecordsTest, DataWithinATicketIsRefused) {
  send(forger_->seal(ContentType::Handshake,
                     Forger::message(4, std::string(200, 't')).substr(0, 9)));
  send(forger_->seal(ContentType::ApplicationData, "a"));
  expect_failure(EPROTO);
}

TEST_F(RecordsTest, AlertsWithoutMeaningAreSkippedWithinABound) {
  for (int i = 0; i < 33; ++i) {
    send(forger_->seal(ContentType::Alert, std::string("\x01\x5a", 2)));
  }
  expect_failure(EPROTO);
}

TEST_F(RecordsTest, TicketsWithoutEndAreRefused) {
  const std::string ticket = Forger::message(4, std::string(10'000, 't'));
  for (int i = 0; i < 7; ++i) send(forger_->seal(ContentType::Handshake, ticket));
  expect_failure(EPROTO);
}

TEST_F(RecordsTest, KeyUpdateIsRefused) {
  send(forger_->seal(ContentType::Handshake, Forger::message(24, std::string(1, '\0'))));
  expect_failure(EPROTO);
}

TEST_F(RecordsTest, AServerTakesNoTicket) {
  Forger client_forger(*connected_->client.stream);
  const Bytes record =
      client_forger.seal(ContentType::Handshake, Forger::message(4, std::string(50, 't')));
  ASSERT_GT(::send(client_fd(), record.data(), record.size(), MSG_NOSIGNAL), 0);
  const Io end = read_end(*connected_->server.stream, connected_->pair.server.get());
  EXPECT_EQ(end.errnum, EPROTO);
}

TEST_F(RecordsTest, AlertsEndTheStream) {
  send(forger_->seal(ContentType::Alert, std::string("\x01\x5a", 2)));  // user_canceled
  send(forger_->seal(ContentType::ApplicationData, "a"));
  EXPECT_EQ(read_some(client(), client_fd(), 1), "a");
  send(forger_->seal(ContentType::Alert, std::string("\x02\x31", 2)));  // access_denied
  expect_failure(ECONNRESET);
}

TEST_F(RecordsTest, CloseNotifyOfAnyLevelIsTheEnd) {
  send(forger_->seal(ContentType::Alert, std::string("\x02\x00", 2)));
  send(forger_->seal(ContentType::ApplicationData, "behind the end"));
  EXPECT_EQ(read_end(client(), client_fd()).kind, Io::Kind::Eof);
  EXPECT_FALSE(client().buffered());
}

TEST_F(RecordsTest, MalformedAlertsAreRefused) {
  send(forger_->seal(ContentType::Alert, std::string("\x03\x00", 2)));
  expect_failure(EPROTO);
}

TEST_F(RecordsTest, EmptyAlertsAreRefused) {
  send(forger_->seal(ContentType::Alert, ""));
  expect_failure(EPROTO);
}

TEST_F(RecordsTest, OtherContentTypesAreRefused) {
  send(forger_->seal(ContentType::ChangeCipherSpec, "\x01"));
  expect_failure(EPROTO);
}

TEST_F(RecordsTest, PlainRecordsAreRefused) {
  send({std::byte{21}, std::byte{3}, std::byte{3}, std::byte{0}, std::byte{2}, std::byte{1},
        std::byte{0}});
  expect_failure(EBADMSG);
}

TEST_F(RecordsTest, ChangedRecordsAreRefusedWhereverTheyAreChanged) {
  for (const std::size_t at : {0, 1, 2, 3, 4, 5, 12, 20, 30}) {
    ASSERT_NO_FATAL_FAILURE(SetUp());
    Bytes record = forger_->seal(ContentType::ApplicationData, "ten bytes!");
    ASSERT_GT(record.size(), at);
    record[at] ^= std::byte{0x80};
    record.resize(record.size() + 40'000);  // a longer length must not wait for ever
    send(record);
    expect_failure(EBADMSG);
  }
}

TEST_F(RecordsTest, RecordsTooLongOrTooShortAreRefused) {
  for (const std::size_t length : {std::size_t{0}, kTagBytes, kMaxSealed + 1}) {
    ASSERT_NO_FATAL_FAILURE(SetUp());
    send({std::byte{23}, std::byte{3}, std::byte{3}, static_cast<std::byte>(length >> 8),
          static_cast<std::byte>(length)});
    expect_failure(EBADMSG);
  }
}

// 2^14 + 1 bytes of content fit into a sealed record, but are too many (RFC 8446 5.4).
TEST_F(RecordsTest, OverlongContentIsRefused) {
  send(forger_->oversized(kMaxPlain + 1));
  expect_failure(EBADMSG);
}

TEST_F(RecordsTest, RepeatedRecordsAreRefused) {
  const Bytes record = forger_->seal(ContentType::ApplicationData, "once");
  send(record);
  EXPECT_EQ(read_some(client(), client_fd(), 4), "once");
  send(record);
  expect_failure(EBADMSG);
}

TEST_F(RecordsTest, DataBeforeABadRecordIsDelivered) {
  Bytes bytes = forger_->seal(ContentType::ApplicationData, "good");
  Bytes bad = forger_->seal(ContentType::ApplicationData, "bad");
  bad.back() ^= std::byte{1};
  bytes.insert(bytes.end(), bad.begin(), bad.end());
  send(bytes);
  EXPECT_EQ(read_some(client(), client_fd(), 4), "good");
  EXPECT_TRUE(client().buffered());  // the end is known, and no edge will tell
  expect_failure(EBADMSG);
}

TEST_F(RecordsTest, CloseNotifyBehindDataIsTold) {
  Bytes bytes = forger_->seal(ContentType::ApplicationData, "last");
  const Bytes end = forger_->seal(ContentType::Alert, std::string("\x01\x00", 2));
  bytes.insert(bytes.end(), end.begin(), end.end());
  send(bytes);
  std::byte buffer[4];
  ASSERT_TRUE(wait_for(client_fd(), 1));
  EXPECT_EQ(client().read(client_fd(), buffer).bytes, 4u);
  EXPECT_TRUE(client().buffered());
  EXPECT_EQ(client().read(client_fd(), buffer).kind, Io::Kind::Eof);
  EXPECT_FALSE(client().buffered());
}

TEST_F(RecordsTest, FinWithinARecordIsTruncation) {
  Bytes record = forger_->seal(ContentType::ApplicationData, "cut");
  record.resize(record.size() - 1);
  send(record);
  ASSERT_EQ(::shutdown(connected_->pair.server.get(), SHUT_WR), 0);
  expect_failure(ECONNABORTED);
}

TEST_F(RecordsTest, IdleStreamHoldsNoBuffer) {
  ASSERT_TRUE(
      write_all(*connected_->server.stream, connected_->pair.server.get(), pattern(100'000, 1)));
  EXPECT_EQ(read_some(client(), client_fd(), 100'000).size(), 100'000u);
  for (Stream* stream : {connected_->client.stream.get(), connected_->server.stream.get()}) {
    const StreamState state = stream->export_state();
    EXPECT_EQ(state.cipher_in.capacity() + state.plain_in.capacity() + state.cipher_out.capacity(),
              0u);
  }
}

// Both ends of a batch: what one write seals goes with one send, and one read opens all of it.
TEST_F(RecordsTest, SeveralRecordsInOneWriteAndOneRead) {
  const std::string text = pattern(4 * kMaxPlain, 7);
  const Io put = connected_->server.stream->write(connected_->pair.server.get(),
                                                  std::as_bytes(std::span(text)));
  ASSERT_EQ(put.kind, Io::Kind::Bytes);
  ASSERT_EQ(put.bytes, text.size());
  ASSERT_FALSE(connected_->server.stream->unsent());
  const int queued = static_cast<int>(kMaxBatch);
  ASSERT_EQ(::setsockopt(client_fd(), SOL_SOCKET, SO_RCVLOWAT, &queued, sizeof(queued)), 0);
  ASSERT_TRUE(wait_for(client_fd(), 1));
  std::string got(text.size() + 100, '\0');
  EXPECT_EQ(client().read(client_fd(), std::as_writable_bytes(std::span(got))).bytes, text.size());
  got.resize(text.size());
  EXPECT_EQ(got, text);
  EXPECT_FALSE(client().buffered());
}

// Room for two records and some: the third is opened in part, and no byte is lost between reads.
TEST_F(RecordsTest, ReadsOfAnySizeWhileManyRecordsWait) {
  std::string sent;
  for (const std::size_t size : {std::size_t{16384}, std::size_t{1}, std::size_t{9000},
                                 std::size_t{16384}, std::size_t{16384}, std::size_t{300}}) {
    const std::string part = pattern(size, size + sent.size());
    send(size == 9000 ? forger_->padded(ContentType::ApplicationData, part, 500)
                      : forger_->seal(ContentType::ApplicationData, part));
    sent += part;
  }
  for (const std::size_t room : {40'000u, 65'536u, 16'384u, 20'000u, 7u}) {
    std::string got;
    std::vector<std::byte> buffer(room);
    SCOPED_TRACE(room);
    if (room != 40'000u) {
      for (std::size_t at = 0; at < sent.size(); at += 10'000)
        send(forger_->seal(ContentType::ApplicationData, sent.substr(at, 10'000)));
    }
    while (got.size() < sent.size()) {
      const Io io = client().read(client_fd(), buffer);
      if (io.kind == Io::Kind::Blocked) {
        ASSERT_TRUE(wait_for(client_fd(), 1));
        continue;
      }
      ASSERT_EQ(io.kind, Io::Kind::Bytes);
      got.append(reinterpret_cast<const char*>(buffer.data()), io.bytes);
    }
    EXPECT_TRUE(got == sent);
  }
}

TEST_F(RecordsTest, WhatTheSocketDoesNotTakeIsBoundedAndCanBeHandedOver) {
  connected_ = connect(scene_, 4096);
  ASSERT_TRUE(connected_);
  Stream& server = *connected_->server.stream;
  const int fd = connected_->pair.server.get();
  const std::string text = pattern(64 * 1024, 3);
  std::string sent;
  while (!server.unsent()) {
    const Io put = server.write(fd, std::as_bytes(std::span(text)));
    ASSERT_EQ(put.kind, Io::Kind::Bytes);
    sent += text.substr(0, put.bytes);
    ASSERT_LT(sent.size(), 64u << 20) << "the socket takes all";
  }
  EXPECT_EQ(server.write(fd, std::as_bytes(std::span(text))).kind, Io::Kind::Blocked);
  EXPECT_EQ(server.end_stream(fd).kind, Io::Kind::Bytes);
  EXPECT_EQ(server.close_notify(fd).kind, Io::Kind::Blocked);
  const StreamState state = server.export_state();
  EXPECT_GT(state.cipher_out.size(), kMaxPlain) << "a batch is kept";
  EXPECT_LE(state.cipher_out.size(), kMaxCipherOut);
  auto parsed = parse_stream_state(serialize(state));
  ASSERT_TRUE(parsed) << parsed.error().what;
  auto successor = import_stream(std::move(*parsed));
  ASSERT_TRUE(successor) << successor.error().what;
  client().allow_end_stream();
  std::string got;
  std::vector<std::byte> buffer(30'000);
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (true) {
    if ((*successor)->unsent()) (void)(*successor)->flush(fd);
    const Io io = client().read(client_fd(), buffer);
    if (io.kind == Io::Kind::Blocked) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      (void)wait_for(client_fd(), 1, std::chrono::milliseconds(10));  // or until there is room
      continue;
    }
    if (io.kind != Io::Kind::Bytes) {
      EXPECT_EQ(io.kind, Io::Kind::Eof);
      break;
    }
    got.append(reinterpret_cast<const char*>(buffer.data()), io.bytes);
  }
  EXPECT_TRUE(got == sent);
  EXPECT_EQ(read_end(client(), client_fd()).kind, Io::Kind::Eof);
  EXPECT_TRUE(client().peer_closed());
}

// A peer that does not wait for the end of the other direction sends several records behind its
// own.
TEST_F(RecordsTest, StateKeepsWhatCameBehindAnEndOfStream) {
  Stream& server = *connected_->server.stream;
  const int fd = connected_->pair.server.get();
  server.allow_end_stream();
  client().allow_end_stream();
  ASSERT_EQ(client().end_stream(client_fd()).kind, Io::Kind::Bytes);
  const std::string text = pattern(40'000, 5);
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  for (std::size_t at = 0; at < text.size() || client().unsent();) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    const Io put = at < text.size()
                       ? client().write(client_fd(), std::as_bytes(std::span(text)).subspan(at))
                       : client().flush(client_fd());
    ASSERT_NE(put.kind, Io::Kind::Failed);
    if (at < text.size() && put.kind == Io::Kind::Bytes) at += put.bytes;
  }
  for (int arrived = 0; arrived < 40'000;) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    ASSERT_EQ(::ioctl(fd, FIONREAD, &arrived), 0);
  }
  std::vector<std::byte> buffer(kMaxBatch);
  ASSERT_EQ(server.read(fd, buffer).kind, Io::Kind::Eof);
  const StreamState state = server.export_state();
  EXPECT_GT(state.cipher_in.size(), kMaxRecord);
  auto parsed = parse_stream_state(serialize(state));
  ASSERT_TRUE(parsed) << parsed.error().what;
  auto successor = import_stream(std::move(*parsed));
  ASSERT_TRUE(successor) << successor.error().what;
  std::string got;
  while (got.size() < text.size()) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    const Io io = (*successor)->read(fd, buffer);
    if (io.kind == Io::Kind::Blocked) continue;
    ASSERT_EQ(io.kind, Io::Kind::Bytes);
    got.append(reinterpret_cast<const char*>(buffer.data()), io.bytes);
  }
  EXPECT_TRUE(got == text);
}

TEST_F(RecordsTest, StateOfAnotherShapeIsRefused) {
  StreamState state = connected_->client.stream->export_state();
  state.cipher_out.resize(10);
  const auto good = serialize(state);
  ASSERT_TRUE(parse_stream_state(good));
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(parse_stream_state(std::span(good).first(size))) << size;
  }
  auto longer = good;
  longer.push_back(0);
  EXPECT_FALSE(parse_stream_state(longer));
  auto other_version = good;
  other_version[0] ^= 2;
  EXPECT_FALSE(parse_stream_state(other_version));
  auto other_cipher = good;
  other_cipher[5] = 1;  // AES-256 with a key of 16 bytes
  EXPECT_FALSE(parse_stream_state(other_cipher));
  state.cipher_in.resize(kMaxBatch);
  EXPECT_TRUE(parse_stream_state(serialize(state)));
  state.cipher_in.resize(kMaxBatch + 1);
  EXPECT_FALSE(parse_stream_state(serialize(state)));
  state.kernel = true;  // whose keys are in the socket only
  EXPECT_FALSE(import_stream(StreamState{}));
}

}  // namespace
}  // namespace mesh::ktls::test
