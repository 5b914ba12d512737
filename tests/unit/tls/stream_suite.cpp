// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/tls/stream_suite.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <random>
#include <thread>

namespace mesh::ktls::test {

void PrintTo(const StreamCase& stream_case, std::ostream* out) {
  *out << (stream_case.client_kernel ? "kernel" : "user") << " to "
       << (stream_case.server_kernel ? "kernel" : "user") << " "
       << traits_of(stream_case.cipher).suite;
}

std::string case_name(const ::testing::TestParamInfo<StreamCase>& info) {
  static constexpr const char* kCiphers[] = {"Aes128", "Aes256", "ChaCha20"};
  return std::string(info.param.client_kernel ? "Kernel" : "User") +
         (info.param.server_kernel ? "Kernel" : "User") +
         kCiphers[static_cast<std::size_t>(info.param.cipher)];
}

void StreamSuite::SetUp() {
  const StreamCase& wanted = GetParam();
  if (wanted.client_kernel || wanted.server_kernel) {
    if (const auto able = probe_kernel_tls(); !able) {
      // In a guest nothing excuses it.
      if (std::getenv("MESH_VM") != nullptr) FAIL() << able.error().what;
      GTEST_SKIP() << "this kernel takes no TLS keys: " << able.error().what;
    }
  }
  scene_.client_options.kernel = wanted.client_kernel;
  scene_.server_options.kernel = wanted.server_kernel;
  scene_.client_options.ciphers = scene_.server_options.ciphers = {wanted.cipher};
}

void StreamSuite::open(int buffer) {
  connected_ = connect(scene_, buffer);
  ASSERT_TRUE(connected_);
  ASSERT_EQ(connected_->client.kernel, GetParam().client_kernel) << connected_->client.not_kernel;
  ASSERT_EQ(connected_->server.kernel, GetParam().server_kernel) << connected_->server.not_kernel;
  ASSERT_EQ(client().info(client_fd()).cipher, traits_of(GetParam().cipher).suite);
}

namespace {

constexpr int kTiny = 4096;

std::string hello(Stream& from, int from_fd, Stream& to, int to_fd, const std::string& text) {
  EXPECT_TRUE(write_all(from, from_fd, text));
  return read_some(to, to_fd, text.size());
}

TEST_P(StreamSuite, BytesGoBothWays) {
  ASSERT_NO_FATAL_FAILURE(open());
  EXPECT_EQ(hello(client(), client_fd(), server(), server_fd(), "ping"), "ping");
  EXPECT_EQ(hello(server(), server_fd(), client(), client_fd(), "pong"), "pong");
  const std::string large = pattern(100'000, 1);
  EXPECT_TRUE(hello(client(), client_fd(), server(), server_fd(), large) == large);
  EXPECT_EQ(client().info(client_fd()).kernel_tx, GetParam().client_kernel);
  EXPECT_EQ(server().info(server_fd()).kernel_rx, GetParam().server_kernel);
  // "ping" and seven records of at most 16 KiB.
  EXPECT_EQ(client().info(client_fd()).records_sent, 8u);
  EXPECT_EQ(server().info(server_fd()).records_received, 8u);
  EXPECT_EQ(client().info(client_fd()).records_received, 1u);
}

TEST_P(StreamSuite, OneByteReadsSeeEveryByte) {
  ASSERT_NO_FATAL_FAILURE(open());
  const std::string text = pattern(40'000, 2);
  ASSERT_TRUE(write_all(client(), client_fd(), text.substr(0, 20'000)));
  ASSERT_TRUE(write_all(client(), client_fd(), text.substr(20'000)));
  std::string got;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string byte = read_some(server(), server_fd(), 1);
    ASSERT_EQ(byte.size(), 1u) << i;
    got += byte;
  }
  EXPECT_TRUE(got == text);
}

TEST_P(StreamSuite, ClientHalfCloseLeavesTheAnswerOpen) {
  ASSERT_NO_FATAL_FAILURE(open());
  ASSERT_TRUE(write_all(client(), client_fd(), "request"));
  ASSERT_TRUE(close_writing(client(), client_fd()));
  EXPECT_EQ(read_some(server(), server_fd(), 100), "request");
  EXPECT_EQ(read_end(server(), server_fd()).kind, Io::Kind::Eof);
  EXPECT_EQ(read_end(server(), server_fd()).kind, Io::Kind::Eof);  // and stays so
  EXPECT_EQ(hello(server(), server_fd(), client(), client_fd(), "answer"), "answer");
  ASSERT_TRUE(close_writing(server(), server_fd()));
  EXPECT_EQ(read_end(client(), client_fd()).kind, Io::Kind::Eof);
}

TEST_P(StreamSuite, ServerHalfCloseLeavesTheRequestOpen) {
  ASSERT_NO_FATAL_FAILURE(open());
  ASSERT_TRUE(write_all(server(), server_fd(), "banner"));
  ASSERT_TRUE(close_writing(server(), server_fd()));
  EXPECT_EQ(read_some(client(), client_fd(), 100), "banner");
  EXPECT_EQ(read_end(client(), client_fd()).kind, Io::Kind::Eof);
  EXPECT_EQ(hello(client(), client_fd(), server(), server_fd(), "upload"), "upload");
  ASSERT_TRUE(close_writing(client(), client_fd()));
  EXPECT_EQ(read_end(server(), server_fd()).kind, Io::Kind::Eof);
}

TEST_P(StreamSuite, NothingIsWrittenAfterCloseNotify) {
  ASSERT_NO_FATAL_FAILURE(open());
  ASSERT_EQ(client().close_notify(client_fd()).kind, Io::Kind::Bytes);
  ASSERT_EQ(client().close_notify(client_fd()).kind, Io::Kind::Bytes);  // once is enough
  EXPECT_EQ(client().write(client_fd(), std::as_bytes(std::span("x", 1))).errnum, EPIPE);
  EXPECT_EQ(read_end(server(), server_fd()).kind, Io::Kind::Eof);
  EXPECT_EQ(server().info(server_fd()).records_received, 1u);
}

TEST_P(StreamSuite, FinWithoutCloseNotifyIsTruncation) {
  ASSERT_NO_FATAL_FAILURE(open());
  ASSERT_TRUE(write_all(client(), client_fd(), "all?"));
  ASSERT_EQ(::shutdown(client_fd(), SHUT_WR), 0);
  EXPECT_EQ(read_some(server(), server_fd(), 4), "all?");
  const Io end = read_end(server(), server_fd());
  EXPECT_EQ(end.kind, Io::Kind::Failed);
  EXPECT_EQ(end.errnum, ECONNABORTED);
  // The other direction goes on.
  EXPECT_EQ(hello(server(), server_fd(), client(), client_fd(), "still"), "still");
}

// As the relay reads: in an edge-triggered set, and no further than to a drained read.
std::string read_by_edges(Stream& stream, int fd, std::size_t room) {
  UniqueFd set(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP | EPOLLET;
  EXPECT_EQ(::epoll_ctl(set.get(), EPOLL_CTL_ADD, fd, &event), 0);
  std::string got;
  std::vector<std::byte> buffer(room);
  for (;;) {
    if (::epoll_wait(set.get(), &event, 1, 10'000) != 1) {
      ADD_FAILURE() << "no edge after " << got.size() << " bytes";
      return got;
    }
    for (;;) {
      const Io io = stream.read(fd, buffer);
      if (io.kind == Io::Kind::Blocked) break;
      if (io.kind != Io::Kind::Bytes) {
        EXPECT_EQ(io.kind, Io::Kind::Eof) << io.errnum;
        return got;
      }
      got.append(reinterpret_cast<const char*>(buffer.data()), io.bytes);
      if (stream.drained() && !stream.buffered()) break;
    }
  }
}

TEST_P(StreamSuite, BehindADrainedReadComesAnEdge) {
  for (const std::size_t room : {1u, 7u, 100u, 16'384u, 65'536u}) {
    SCOPED_TRACE(room);
    ASSERT_NO_FATAL_FAILURE(open());
    // Everything is there before the first read: small records, a large one, and the control record
    // at the end, without a FIN.
    std::string text;
    for (const std::size_t length : {3u, 50u, 5000u, 1u}) {
      text += pattern(length, static_cast<unsigned>(length));
      ASSERT_TRUE(write_all(client(), client_fd(), pattern(length, static_cast<unsigned>(length))));
    }
    ASSERT_EQ(client().close_notify(client_fd()).kind, Io::Kind::Bytes);
    EXPECT_TRUE(read_by_edges(server(), server_fd(), room) == text);
  }
}

TEST_P(StreamSuite, ADrainedReadNeverMissesWhatComesMeanwhile) {
  ASSERT_NO_FATAL_FAILURE(open());
  const std::string text = pattern(200'000, 5);
  std::thread writer([&] {
    for (std::size_t at = 0, step = 1; at < text.size(); at += step, step = step * 5 % 997 + 1) {
      step = std::min(step, text.size() - at);
      EXPECT_TRUE(write_all(client(), client_fd(), text.substr(at, step)));
    }
    EXPECT_EQ(client().close_notify(client_fd()).kind, Io::Kind::Bytes);
  });
  EXPECT_TRUE(read_by_edges(server(), server_fd(), 16'384) == text);
  writer.join();
}

TEST_P(StreamSuite, ResetIsAnError) {
  ASSERT_NO_FATAL_FAILURE(open());
  const linger now{1, 0};
  ASSERT_EQ(::setsockopt(client_fd(), SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
  connected_->pair.client.reset();
  const Io end = read_end(server(), server_fd());
  EXPECT_EQ(end.kind, Io::Kind::Failed);
  EXPECT_EQ(end.errnum, ECONNRESET);
}

// All that was written arrives, in order, and then the end: also when the socket was full, where
// the kernel keeps records above TCP that a FIN would overtake.
TEST_P(StreamSuite, CloseAfterTheSocketWasFullCutsNothingOff) {
  for (const int buffer : {kTiny, 64 * 1024, 0}) {
    ASSERT_NO_FATAL_FAILURE(open(buffer));
    const std::string block = pattern(50'000, 3);
    std::size_t written = 0;
    while (true) {
      const Io io = client().write(client_fd(), std::as_bytes(std::span(block)));
      ASSERT_NE(io.kind, Io::Kind::Failed) << io.errnum;
      if (io.kind == Io::Kind::Blocked) break;
      written += io.bytes;
      // The next block continues the pattern where this one stopped.
      if (io.bytes != block.size()) break;
    }
    std::size_t got = 0;
    bool same = true;
    Io end;
    std::thread reader([&] {
      std::array<std::byte, 5000> buffer_in;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      while (true) {
        end = server().read(server_fd(), buffer_in);
        if (end.kind == Io::Kind::Blocked) {
          if (!wait_for(server_fd(), POLLIN)) return;
          continue;
        }
        if (end.kind != Io::Kind::Bytes) return;
        for (std::size_t i = 0; i < end.bytes; ++i) {
          same = same && static_cast<char>(buffer_in[i]) == block[(got + i) % block.size()];
        }
        got += end.bytes;
      }
    });
    EXPECT_TRUE(close_writing(client(), client_fd()));
    reader.join();
    EXPECT_EQ(end.kind, Io::Kind::Eof) << "buffer " << buffer << ", errno " << end.errnum;
    EXPECT_EQ(got, written) << "buffer " << buffer;
    EXPECT_TRUE(same) << "buffer " << buffer;
  }
}

struct Direction {
  std::string data;
  std::size_t sent = 0;
  std::size_t received = 0;
  bool closed = false;
  bool ended = false;
};

// One thread serves both ends, so that every mixture of full and empty occurs.
void shuffle(Stream& from, int from_fd, Stream& to, int to_fd, Direction& direction,
             std::mt19937& random) {
  static thread_local std::vector<std::byte> into(70'000);
  const auto pick = [&](std::size_t most) { return 1 + random() % most; };
  if (from.unsent()) (void)from.flush(from_fd);
  if (direction.sent < direction.data.size()) {
    const std::size_t size =
        std::min(pick(random() % 4 == 0 ? 65'000 : 900), direction.data.size() - direction.sent);
    const Io io =
        from.write(from_fd, std::as_bytes(std::span(direction.data).subspan(direction.sent, size)));
    ASSERT_NE(io.kind, Io::Kind::Failed) << "write: " << io.errnum;
    if (io.kind == Io::Kind::Bytes) direction.sent += io.bytes;
  } else if (!direction.closed) {
    const Io io = from.close_notify(from_fd);
    ASSERT_NE(io.kind, Io::Kind::Failed) << "close_notify: " << io.errnum;
    if (io.kind == Io::Kind::Bytes) {
      direction.closed = true;
      ASSERT_EQ(::shutdown(from_fd, SHUT_WR), 0);
    }
  }
  const std::size_t size = pick(random() % 4 == 0 ? into.size() : 2000);
  const Io io = to.read(to_fd, std::span(into).first(size));
  ASSERT_NE(io.kind, Io::Kind::Failed) << "read: " << io.errnum;
  if (io.kind == Io::Kind::Eof) direction.ended = true;
  if (io.kind != Io::Kind::Bytes) return;
  ASSERT_LE(direction.received + io.bytes, direction.data.size());
  const auto expected =
      std::as_bytes(std::span(direction.data).subspan(direction.received, io.bytes));
  ASSERT_TRUE(std::equal(expected.begin(), expected.end(), into.begin()))
      << "differs after " << direction.received;
  direction.received += io.bytes;
}

TEST_P(StreamSuite, BulkBothWaysThroughTinyBuffers) {
  for (const int buffer : {kTiny, 32 * 1024, 0}) {
    ASSERT_NO_FATAL_FAILURE(open(buffer));
    std::mt19937 random(static_cast<unsigned>(buffer) + 5);
    Direction up{pattern(1'500'000, 10)};
    Direction down{pattern(1'500'000, 11)};
    const auto end = std::chrono::steady_clock::now() + 4 * kPatience;
    while (!up.ended || !down.ended) {
      ASSERT_LT(std::chrono::steady_clock::now(), end)
          << "buffer " << buffer << ": " << up.received << " and " << down.received;
      const std::size_t before = up.received + down.received;
      ASSERT_NO_FATAL_FAILURE(shuffle(client(), client_fd(), server(), server_fd(), up, random));
      ASSERT_NO_FATAL_FAILURE(shuffle(server(), server_fd(), client(), client_fd(), down, random));
      if (before == up.received + down.received)
        (void)wait_for(server_fd(), POLLIN, std::chrono::milliseconds(1));
    }
    EXPECT_EQ(up.received, up.data.size());
    EXPECT_EQ(down.received, down.data.size());
  }
}

// State goes through bytes, as to another process, again and again in the middle of everything.
TEST_P(StreamSuite, SuccessorGoesOnInTheMiddle) {
  ASSERT_NO_FATAL_FAILURE(open(kTiny));
  std::mt19937 random(99);
  Direction up{pattern(400'000, 12)};
  Direction down{pattern(400'000, 13)};
  const auto hand_over = [](std::unique_ptr<Stream>& stream) {
    auto state = parse_stream_state(serialize(stream->export_state()));
    ASSERT_TRUE(state) << state.error().what;
    stream.reset();
    auto successor = import_stream(std::move(*state));
    ASSERT_TRUE(successor) << successor.error().what;
    stream = std::move(*successor);
  };
  const auto end = std::chrono::steady_clock::now() + 4 * kPatience;
  int turns = 0;
  while (!up.ended || !down.ended) {
    ASSERT_LT(std::chrono::steady_clock::now(), end);
    ASSERT_NO_FATAL_FAILURE(shuffle(client(), client_fd(), server(), server_fd(), up, random));
    ASSERT_NO_FATAL_FAILURE(shuffle(server(), server_fd(), client(), client_fd(), down, random));
    if (++turns % 7 != 0) continue;
    ASSERT_NO_FATAL_FAILURE(hand_over(connected_->client.stream));
    ASSERT_NO_FATAL_FAILURE(hand_over(connected_->server.stream));
  }
  EXPECT_GT(turns, 14);
  EXPECT_EQ(client().info(client_fd()).records_sent, server().info(server_fd()).records_received);
}

TEST_P(StreamSuite, LimitOfTheKeyIsSeenInTime) {
  scene_.client_options.limit_records = 64;  // full records: 1 MiB for AES-GCM
  ASSERT_NO_FATAL_FAILURE(open());
  const std::string block = pattern(16384, 20);
  int blocks = 0;
  while (blocks < 80 && !client().exhausted()) {
    ASSERT_TRUE(hello(client(), client_fd(), server(), server_fd(), block) == block);
    ++blocks;
  }
  EXPECT_FALSE(server().exhausted());  // has the usual limit
  if (GetParam().cipher == Cipher::ChaCha20Poly1305) {
    EXPECT_EQ(blocks, 80);
    return;
  }
  EXPECT_GE(blocks, 60);
  EXPECT_LE(blocks, 64);
  // There is room to end properly.
  EXPECT_TRUE(close_writing(client(), client_fd()));
  EXPECT_EQ(read_end(server(), server_fd()).kind, Io::Kind::Eof);
}

// Small records count by their size: 2,000 of them are far from the limit of 64 full ones, and what
// user space cannot see (how many records one read merged) is asked of the kernel.
TEST_P(StreamSuite, SmallRecordsCountByTheirSize) {
  scene_.client_options.limit_records = scene_.server_options.limit_records = 64;
  ASSERT_NO_FATAL_FAILURE(open());
  for (int i = 0; i < 2000; ++i) {
    ASSERT_EQ(hello(client(), client_fd(), server(), server_fd(), "0123456789abcdef"),
              "0123456789abcdef");
  }
  EXPECT_FALSE(client().exhausted());
  EXPECT_FALSE(server().exhausted());
}

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};

TEST_P(StreamSuite, SpliceGivesTheSameBytesAndTheSameEnd) {
  ASSERT_NO_FATAL_FAILURE(open());
  if (!server().can_splice()) {
    EXPECT_FALSE(GetParam().server_kernel);
    EXPECT_EQ(server().splice_in(server_fd(), -1, 1).kind, Io::Kind::Failed);
    return;
  }
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
  const Pipe pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
  // Smaller than a record: what does not fit must not get lost.
  ASSERT_GE(::fcntl(pipe.write.get(), F_SETPIPE_SZ, 8192), 8192);
  const std::string data = pattern(3'000'000, 30);
  std::thread writer([&] {
    EXPECT_TRUE(write_all(client(), client_fd(), data));
    EXPECT_TRUE(close_writing(client(), client_fd()));
  });
  std::string got;
  Io end;
  while (true) {
    end = server().splice_in(server_fd(), pipe.write.get(), 65'536);
    if (end.kind == Io::Kind::Blocked) {
      if (!wait_for(server_fd(), POLLIN)) break;
      continue;
    }
    if (end.kind != Io::Kind::Bytes) break;
    std::string part(end.bytes, '\0');
    ASSERT_EQ(::read(pipe.read.get(), part.data(), part.size()), static_cast<ssize_t>(part.size()));
    got += part;
  }
  writer.join();
  EXPECT_EQ(end.kind, Io::Kind::Eof) << end.errnum;
  EXPECT_EQ(got.size(), data.size());
  EXPECT_TRUE(got == data);
}

TEST_P(StreamSuite, SpliceSeesTruncation) {
  ASSERT_NO_FATAL_FAILURE(open());
  if (!server().can_splice()) return;
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
  const Pipe pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
  EXPECT_EQ(server().splice_in(server_fd(), pipe.write.get(), 100).kind, Io::Kind::Blocked);
  ASSERT_EQ(::shutdown(client_fd(), SHUT_WR), 0);
  ASSERT_TRUE(wait_for(server_fd(), POLLIN));
  const Io end = server().splice_in(server_fd(), pipe.write.get(), 100);
  EXPECT_EQ(end.kind, Io::Kind::Failed);
  EXPECT_EQ(end.errnum, ECONNABORTED);
}

}  // namespace
}  // namespace mesh::ktls::test
