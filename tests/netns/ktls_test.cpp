// SPDX-License-Identifier: Apache-2.0
// Streams whose records the kernel makes: the suites of tests/unit/tls, and what the kernel does
// with records that ours never send. Needs a kernel with tls: natively it may skip, in the guests
// it may not.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstdlib>

#include "ktls/kernel_stream.h"
#include "tests/unit/tls/foreign_records.h"
#include "tests/unit/tls/interop_suite.h"
#include "tests/unit/tls/stream_suite.h"

namespace mesh::ktls::test {
namespace {

INSTANTIATE_TEST_SUITE_P(Kernel, StreamSuite,
                         ::testing::Values(StreamCase{true, true, Cipher::Aes128Gcm},
                                           StreamCase{true, true, Cipher::Aes256Gcm},
                                           StreamCase{true, true, Cipher::ChaCha20Poly1305},
                                           StreamCase{true, false, Cipher::Aes128Gcm},
                                           StreamCase{true, false, Cipher::Aes256Gcm},
                                           StreamCase{true, false, Cipher::ChaCha20Poly1305},
                                           StreamCase{false, true, Cipher::Aes128Gcm},
                                           StreamCase{false, true, Cipher::Aes256Gcm},
                                           StreamCase{false, true, Cipher::ChaCha20Poly1305}),
                         case_name);

INSTANTIATE_TEST_SUITE_P(Kernel, InteropSuite, ::testing::Values(true),
                         [](const auto&) { return std::string("Kernel"); });

// The client's records are the kernel's, the server's are made by hand. The parameter says whether
// the client reads by splice(2).
class KernelRecordsTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (const auto able = probe_kernel_tls(); !able) {
      if (std::getenv("MESH_VM") != nullptr) FAIL() << able.error().what;
      GTEST_SKIP() << "this kernel takes no TLS keys: " << able.error().what;
    }
    scene_.client_options.kernel = true;
    connected_ = connect(scene_);
    ASSERT_TRUE(connected_);
    ASSERT_TRUE(connected_->client.kernel) << connected_->client.not_kernel;
    forger_.emplace(*connected_->server.stream);
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
    pipe_read_.reset(ends[0]);
    pipe_write_.reset(ends[1]);
  }
  [[nodiscard]] int client_fd() const { return connected_->pair.client.get(); }
  void send(const std::vector<std::byte>& bytes) {
    ASSERT_EQ(::send(connected_->pair.server.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  // Everything up to the end, which goes to `end_`.
  std::string read_all() {
    std::string got;
    const auto limit = std::chrono::steady_clock::now() + kPatience;
    while (std::chrono::steady_clock::now() < limit) {
      std::byte buffer[3];  // shorter than most records
      end_ = GetParam() ? connected_->client.stream->splice_in(client_fd(), pipe_write_.get(), 4096)
                        : connected_->client.stream->read(client_fd(), buffer);
      if (end_.kind == Io::Kind::Blocked) {
        (void)wait_for(client_fd(), POLLIN);
        continue;
      }
      if (end_.kind != Io::Kind::Bytes) return got;
      std::string part(end_.bytes, '\0');
      if (GetParam()) {
        EXPECT_EQ(::read(pipe_read_.get(), part.data(), part.size()),
                  static_cast<ssize_t>(part.size()));
      } else {
        std::memcpy(part.data(), buffer, part.size());
      }
      got += part;
    }
    return got;
  }
  void expect_failure(int errnum) {
    EXPECT_EQ(end_.kind, Io::Kind::Failed);
    EXPECT_EQ(end_.errnum, errnum);
    read_all();  // and stays so
    EXPECT_EQ(end_.errnum, errnum);
  }

  Scene scene_;
  std::optional<Connected> connected_;
  std::optional<Forger> forger_;
  UniqueFd pipe_read_;
  UniqueFd pipe_write_;
  Io end_;
};

TEST_P(KernelRecordsTest, TicketsAreSkipped) {
  const std::string ticket = Forger::message(4, std::string(1500, 't'));
  send(forger_->seal(ContentType::Handshake, ticket + ticket));
  send(forger_->seal(ContentType::ApplicationData, "first, "));
  send(forger_->seal(ContentType::Handshake, ticket.substr(0, 2)));
  send(forger_->seal(ContentType::Handshake, ticket.substr(2)));
  send(forger_->seal(ContentType::ApplicationData, "second"));
  send(forger_->seal(ContentType::Alert, std::string("\x01\x00", 2)));
  EXPECT_EQ(read_all(), "first, second");
  EXPECT_EQ(end_.kind, Io::Kind::Eof);
  EXPECT_EQ(connected_->client.stream->info(client_fd()).records_received, 6u);
}

TEST_P(KernelRecordsTest, DataWithinATicketOrAnAlertIsRefused) {
  const std::string ticket = Forger::message(4, std::string(200, 't'));
  const std::pair<ContentType, std::string> parts[] = {
      {ContentType::Handshake, ticket.substr(0, 2)},
      {ContentType::Handshake, ticket.substr(0, 9)},
      {ContentType::Alert, "\x01"}};
  for (const auto& [type, part] : parts) {
    ASSERT_NO_FATAL_FAILURE(SetUp());
    send(forger_->seal(ContentType::ApplicationData, "before"));
    send(forger_->seal(type, part));
    send(forger_->seal(ContentType::ApplicationData, "within"));
    EXPECT_EQ(read_all(), "before") << part.size();
    expect_failure(EPROTO);
    int left_in_pipe = -1;
    ASSERT_EQ(::ioctl(pipe_read_.get(), FIONREAD, &left_in_pipe), 0);
    EXPECT_EQ(left_in_pipe, 0) << part.size();
  }
}

TEST_P(KernelRecordsTest, PaddingIsTakenOff) {
  send(forger_->padded(ContentType::ApplicationData, "text", 300));
  send(forger_->padded(ContentType::Alert, std::string("\x01\x00", 2), 30));
  EXPECT_EQ(read_all(), "text");
  EXPECT_EQ(end_.kind, Io::Kind::Eof);
}

TEST_P(KernelRecordsTest, EmptyRecordsAreSkipped) {
  send(forger_->seal(ContentType::ApplicationData, ""));
  send(forger_->seal(ContentType::ApplicationData, "a"));
  for (int i = 0; i < 5; ++i) send(forger_->seal(ContentType::ApplicationData, ""));
  send(forger_->seal(ContentType::ApplicationData, "b"));
  send(forger_->seal(ContentType::Alert, std::string("\x01\x00", 2)));
  EXPECT_EQ(read_all(), "ab");
  EXPECT_EQ(end_.kind, Io::Kind::Eof);
}

TEST_P(KernelRecordsTest, KeyUpdateIsRefused) {
  send(forger_->seal(ContentType::ApplicationData, "data"));
  send(forger_->seal(ContentType::Handshake, Forger::message(24, std::string(1, '\0'))));
  EXPECT_EQ(read_all(), "data");
  expect_failure(EPROTO);
}

TEST_P(KernelRecordsTest, AlertsAreErrors) {
  send(forger_->seal(ContentType::Alert, std::string("\x02\x31", 2)));
  EXPECT_EQ(read_all(), "");
  expect_failure(ECONNRESET);
}

TEST_P(KernelRecordsTest, EmptyAlertsAreRefused) {
  send(forger_->seal(ContentType::Alert, ""));
  EXPECT_EQ(read_all(), "");
  EXPECT_EQ(end_.kind, Io::Kind::Failed);
}

TEST_P(KernelRecordsTest, ChangedRecordsAreRefused) {
  for (const std::size_t at : {0, 1, 2, 3, 5, 20, 24}) {
    ASSERT_NO_FATAL_FAILURE(SetUp());
    send(forger_->seal(ContentType::ApplicationData, "good"));
    auto record = forger_->seal(ContentType::ApplicationData, "bad");
    ASSERT_GT(record.size(), at);
    record[at] ^= std::byte{0x80};
    send(record);
    if (at == 0) {
      // The kernel does not look at the outer type, which TLS 1.3 fixes: what is inside is
      // authentic all the same.
      send(forger_->seal(ContentType::Alert, std::string("\x01\x00", 2)));
      EXPECT_EQ(read_all(), "goodbad");
      EXPECT_EQ(end_.kind, Io::Kind::Eof);
      continue;
    }
    EXPECT_EQ(read_all(), "good") << at;
    expect_failure(EBADMSG);
  }
}

TEST_P(KernelRecordsTest, FinWithinARecordIsTruncation) {
  auto record = forger_->seal(ContentType::ApplicationData, "cut");
  record.pop_back();
  send(record);
  ASSERT_EQ(::shutdown(connected_->pair.server.get(), SHUT_WR), 0);
  EXPECT_EQ(read_all(), "");
  expect_failure(ECONNABORTED);
}

TEST_P(KernelRecordsTest, OneByteAtATime) {
  auto bytes = forger_->seal(ContentType::ApplicationData, "slow but whole");
  const auto end = forger_->seal(ContentType::Alert, std::string("\x01\x00", 2));
  bytes.insert(bytes.end(), end.begin(), end.end());
  const int now = 1;
  ASSERT_EQ(
      ::setsockopt(connected_->pair.server.get(), IPPROTO_TCP, TCP_NODELAY, &now, sizeof(now)), 0);
  for (const std::byte byte : bytes) send({byte});
  EXPECT_EQ(read_all(), "slow but whole");
  EXPECT_EQ(end_.kind, Io::Kind::Eof);
}

INSTANTIATE_TEST_SUITE_P(Kernel, KernelRecordsTest, ::testing::Bool(), [](const auto& test) {
  return std::string(test.param ? "Splice" : "Read");
});

// The kernel refuses one of the keys: what came before tells whether user space may take over.
TEST(KernelArmTest, RefusedKeysAreNamed) {
  if (const auto able = probe_kernel_tls(); !able) {
    if (std::getenv("MESH_VM") != nullptr) FAIL() << able.error().what;
    GTEST_SKIP() << "this kernel takes no TLS keys: " << able.error().what;
  }
  Scene scene;
  auto connected = connect(scene);
  ASSERT_TRUE(connected);
  const StreamState state = connected->client.stream->export_state();
  const UniqueFd unconnected(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  auto armed = arm_kernel(unconnected.get(), state);
  ASSERT_FALSE(armed);
  EXPECT_FALSE(armed.error().clean);
  ASSERT_TRUE(arm_kernel(connected->pair.client.get(), state));
  armed = arm_kernel(connected->pair.client.get(), state);
  ASSERT_FALSE(armed);
  EXPECT_NE(armed.error().error.what.find("TCP_ULP"), std::string::npos);
}

// The end of the handshake, the request, close_notify and FIN in one flight: the server's socket is
// not established any more when its keys are there, and the kernel does not take them.
TEST(KernelArmTest, APeerThatHasClosedByThenIsServedInUserSpace) {
  if (const auto able = probe_kernel_tls(); !able) {
    if (std::getenv("MESH_VM") != nullptr) FAIL() << able.error().what;
    GTEST_SKIP() << "this kernel takes no TLS keys: " << able.error().what;
  }
  Scene scene;
  scene.server_options.kernel = true;
  Ends ends(scene);
  const Outcome outcome = ends.run();
  ASSERT_EQ(outcome.client, Handshake::Step::Done);
  ASSERT_EQ(outcome.server, Handshake::Step::Done);
  const int client_fd = ends.pair.client.get();
  const int server_fd = ends.pair.server.get();
  auto client = ends.client->finish();
  ASSERT_TRUE(client) << client.error().what;
  ASSERT_TRUE(write_all(*client->stream, client_fd, "request"));
  ASSERT_TRUE(close_writing(*client->stream, client_fd));
  ASSERT_TRUE(wait_for(server_fd, POLLRDHUP));
  auto server = ends.server->finish();
  ASSERT_TRUE(server) << server.error().what;
  EXPECT_FALSE(server->kernel);
  EXPECT_NE(server->not_kernel.find("TCP_ULP"), std::string::npos) << server->not_kernel;
  EXPECT_EQ(read_some(*server->stream, server_fd, 100), "request");
  EXPECT_EQ(read_end(*server->stream, server_fd).kind, Io::Kind::Eof);
  ASSERT_TRUE(write_all(*server->stream, server_fd, "answer"));
  ASSERT_TRUE(close_writing(*server->stream, server_fd));
  EXPECT_EQ(read_some(*client->stream, client_fd, 100), "answer");
  EXPECT_EQ(read_end(*client->stream, client_fd).kind, Io::Kind::Eof);
}

// What is shown of a connection is what the kernel says now, and not that it was armed once.
TEST(KernelInfoTest, ASocketWithoutKeysHasNoneWhateverWeRemember) {
  Scene scene;
  auto connected = connect(scene);
  ASSERT_TRUE(connected);
  StreamState state = connected->client.stream->export_state();
  state.tx.records = 3;
  const KernelStream stream(std::move(state));
  const auto info = stream.info(connected->pair.client.get());
  EXPECT_FALSE(info.kernel_tx);
  EXPECT_FALSE(info.kernel_rx);
  EXPECT_EQ(info.records_sent, 3u) << "our own count";
}

}  // namespace
}  // namespace mesh::ktls::test
