// SPDX-License-Identifier: Apache-2.0
// Legs that carry several connections: the end of one of them is not the end of the leg.
#include <poll.h>

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
