// SPDX-License-Identifier: Apache-2.0
// Legs that carry several connections: the end of one of them is not the end of the leg.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "ktls/record.h"
#include "tests/unit/tls/stream_suite.h"

namespace mesh::ktls::test {
namespace {

bool end_stream(Stream& stream, int fd) {
  Io io = stream.end_stream(fd);
  for (; io.kind == Io::Kind::Blocked; io = stream.end_stream(fd))
    if (!wait_for(fd, POLLOUT)) return false;
  for (; io.kind != Io::Kind::Failed && stream.unsent(); io = stream.flush(fd))
    if (!wait_for(fd, POLLOUT)) return false;
  return io.kind != Io::Kind::Failed;
}

TEST_P(StreamSuite, EndStreamEndsOneConnectionAndNotTheLeg) {
  ASSERT_NO_FATAL_FAILURE(open());
  client().allow_end_stream();
  server().allow_end_stream();
  for (int round = 0; round < 3; ++round) {
    const std::string up = pattern(50'000, 10 + round), down = pattern(7, 20 + round);
    ASSERT_TRUE(write_all(client(), client_fd(), up));
    ASSERT_TRUE(end_stream(client(), client_fd()));
    // The next connection's bytes may be there already: they come after the end, not before.
    ASSERT_TRUE(write_all(client(), client_fd(), "next"));
    EXPECT_TRUE(read_some(server(), server_fd(), up.size()) == up);
    EXPECT_EQ(read_end(server(), server_fd()).kind, Io::Kind::Eof);
    EXPECT_FALSE(server().peer_closed());
    EXPECT_EQ(read_some(server(), server_fd(), 4), "next");
    ASSERT_TRUE(write_all(server(), server_fd(), down));
    ASSERT_TRUE(end_stream(server(), server_fd()));
    EXPECT_EQ(read_some(client(), client_fd(), down.size()), down);
    EXPECT_EQ(read_end(client(), client_fd()).kind, Io::Kind::Eof);
  }
  ASSERT_TRUE(close_writing(client(), client_fd()));
  EXPECT_EQ(read_end(server(), server_fd()).kind, Io::Kind::Eof);
  EXPECT_TRUE(server().peer_closed());
}

// splice_in moves several records at once: an end among them is told behind their bytes, once, also
// by a process that takes the stream over in between.
TEST_P(StreamSuite, EndStreamBehindSplicedRecords) {
  ASSERT_NO_FATAL_FAILURE(open());
  if (!server().can_splice()) return;
  client().allow_end_stream();
  server().allow_end_stream();
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
  const UniqueFd out(ends[0]), in(ends[1]);
  const int capacity = ::fcntl(in.get(), F_SETPIPE_SZ, 256 * 1024);
  const int on = 1;  // or the end would wait until the bytes before it are acknowledged
  ASSERT_EQ(::setsockopt(client_fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
  ASSERT_GE(capacity, 256 * 1024);
  for (const std::size_t size : {50'000u, 200'000u}) {
    const std::string up = pattern(size, size);
    ASSERT_TRUE(write_all(client(), client_fd(), up));
    ASSERT_TRUE(end_stream(client(), client_fd()));
    ASSERT_TRUE(write_all(client(), client_fd(), "next"));
    // Until the end is in the socket, too; more than the first window comes later.
    const std::size_t sealed = size + 5 * kSealOverhead + 2;
    int queued = 0;
    for (int i = 0; i < 100 && static_cast<std::size_t>(queued) < sealed; ++i) {
      ASSERT_EQ(::ioctl(server_fd(), FIONREAD, &queued), 0);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    const bool all_there = static_cast<std::size_t>(queued) >= sealed;
    std::string got;
    std::size_t largest = 0;
    bool waited = false;
    Io io;
    while (io.kind != Io::Kind::Eof) {
      io = server().splice_in(server_fd(), in.get(), static_cast<std::size_t>(capacity));
      ASSERT_NE(io.kind, Io::Kind::Failed) << io.errnum;
      if (io.kind == Io::Kind::Blocked) {
        ASSERT_TRUE(wait_for(server_fd(), POLLIN));
      }
      if (io.kind != Io::Kind::Bytes) continue;
      largest = std::max(largest, io.bytes);
      std::string part(io.bytes, '\0');
      ASSERT_EQ(::read(out.get(), part.data(), part.size()), static_cast<ssize_t>(part.size()));
      got += part;
      if (!server().buffered()) continue;
      waited = true;
      auto state = parse_stream_state(serialize(server().export_state()));
      ASSERT_TRUE(state) << state.error().what;
      auto successor = import_stream(std::move(*state));
      ASSERT_TRUE(successor) << successor.error().what;
      connected_->server.stream = std::move(*successor);
      EXPECT_TRUE(server().buffered());
    }
    EXPECT_TRUE(got == up);
    EXPECT_TRUE(waited || !all_there || size > 65'536) << "the end came by itself";
    EXPECT_GT(largest, 16'384u);
    EXPECT_FALSE(server().buffered());
    EXPECT_EQ(read_some(server(), server_fd(), 4), "next");
  }
  // close_notify is an end like that.
  ASSERT_TRUE(write_all(client(), client_fd(), "last"));
  ASSERT_TRUE(close_writing(client(), client_fd()));
  ASSERT_TRUE(wait_for(server_fd(), POLLIN));
  EXPECT_EQ(server().splice_in(server_fd(), in.get(), 100'000).bytes, 4u);
  EXPECT_EQ(server().splice_in(server_fd(), in.get(), 100'000).kind, Io::Kind::Eof);
  EXPECT_TRUE(server().peer_closed());
}

TEST_P(StreamSuite, AnEndOfStreamThatWasNotAgreedOnIsFatal) {
  ASSERT_NO_FATAL_FAILURE(open());
  ASSERT_TRUE(end_stream(client(), client_fd()));
  const Io end = read_end(server(), server_fd());
  EXPECT_EQ(end.kind, Io::Kind::Failed);
  EXPECT_EQ(end.errnum, ECONNRESET);
}

TEST_P(StreamSuite, ATruncatedSecondConnectionIsNoEnd) {
  ASSERT_NO_FATAL_FAILURE(open());
  server().allow_end_stream();
  ASSERT_TRUE(end_stream(client(), client_fd()));
  ASSERT_TRUE(write_all(client(), client_fd(), "half"));
  connected_->pair.client.reset();  // FIN without close_notify
  EXPECT_EQ(read_end(server(), server_fd()).kind, Io::Kind::Eof);
  EXPECT_EQ(read_some(server(), server_fd(), 4), "half");
  const Io end = read_end(server(), server_fd());
  EXPECT_EQ(end.kind, Io::Kind::Failed);
  EXPECT_EQ(end.errnum, ECONNABORTED);
}

}  // namespace
}  // namespace mesh::ktls::test
