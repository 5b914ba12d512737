// SPDX-License-Identifier: Apache-2.0
// What comes after a finished handshake and should not: records that were changed or cut on their
// way, and agents that ask for nothing or for nonsense. Records of the kernel where it makes them.
#include <sys/socket.h>

#include <algorithm>
#include <array>

#include "tests/unit/relay/mesh_leg_fixture.h"

namespace mesh::relay::test {
namespace {

// A wire between the two agents that does harm to what goes over it next one way.
class Wire {
 public:
  enum class Harm { None, Flip, Cut };

  explicit Wire(std::uint16_t to) : to_(to), listener_(listening(64, false)) {
    thread_ = std::thread([this] { run(); });
  }
  ~Wire() {
    ::shutdown(listener_.get(), SHUT_RDWR);  // ends accept
    stop_ = true;
    thread_.join();
  }
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;

  [[nodiscard]] std::uint16_t port() const { return port_of(listener_); }
  void harm_next(bool to_server, Harm harm) { (to_server ? up_ : down_) = harm; }

 private:
  void run() {
    while (!stop_) {
      UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!client) return;
      UniqueFd server = client_socket();
      if (connect_to(server, to_) != 0) return;
      carry(client, server);
    }
  }
  // One connection after the other is enough here.
  void carry(UniqueFd& client, UniqueFd& server) {
    bool up_open = true;
    bool down_open = true;
    while (!stop_ && (up_open || down_open)) {
      std::array<pollfd, 2> fds{pollfd{client.get(), short(up_open ? POLLIN : 0), 0},
                                pollfd{server.get(), short(down_open ? POLLIN : 0), 0}};
      if (::poll(fds.data(), fds.size(), 20) <= 0) continue;
      bool failed = ((fds[0].revents | fds[1].revents) & POLLERR) != 0;
      if (up_open && fds[0].revents != 0) failed |= !pass(client, server, up_, up_open);
      if (down_open && fds[1].revents != 0) failed |= !pass(server, client, down_, down_open);
      if (failed) {  // an RST goes on as such
        reset(client);
        reset(server);
        return;
      }
    }
  }
  static bool pass(const UniqueFd& from, const UniqueFd& to, std::atomic<Harm>& harm, bool& open) {
    std::array<char, 65536> bytes;
    const ssize_t got = ::recv(from.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN;
    auto size = static_cast<std::size_t>(got);
    const Harm now = got > 0 ? harm.exchange(Harm::None) : Harm::None;
    if (now == Harm::Flip) bytes[size - 1] ^= 1;  // of the tag
    if (now == Harm::Cut) size /= 2;
    if (!send_all(to, std::string_view(bytes.data(), size))) return false;
    if (got > 0 && now != Harm::Cut) return true;
    open = false;
    return ::shutdown(to.get(), SHUT_WR) == 0;
  }

  const std::uint16_t to_;
  const UniqueFd listener_;
  std::atomic<Harm> up_{Harm::None};
  std::atomic<Harm> down_{Harm::None};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// The parameter: whose records, the kernel's or the agent's.
class MeshRecords : public MeshLegTest, public ::testing::WithParamInterface<bool> {
 protected:
  void SetUp() override {
    want_records_of_the(GetParam());
    if (!IsSkipped()) start_mesh();
  }
  void TearDown() override {
    MeshLegTest::TearDown();
    wire_.reset();
  }
  std::uint16_t way_to(std::uint16_t mesh_port) override {
    wire_.emplace(mesh_port);
    return wire_->port();
  }
  // A connection over which something has gone; then harm is done one way.
  void expect_reset(bool to_server, Wire::Harm harm, RecordFailure reason) {
    SCOPED_TRACE(to_server);
    const Side side = to_server ? Side::Inbound : Side::Outbound;
    const auto before = record_failures(side, reason);
    const auto all = record_failures();
    Pair pair = connect_pair(entry_);
    ASSERT_TRUE(send_all(pair.client, "ping"));
    ASSERT_EQ(receive(pair.server, 4), "ping");
    ASSERT_TRUE(send_all(pair.server, "pong"));
    ASSERT_EQ(receive(pair.client, 4), "pong");
    wire_->harm_next(to_server, harm);
    ASSERT_TRUE(send_all(to_server ? pair.client : pair.server, "spoilt"));
    // No byte of it, and no end that looks like one.
    EXPECT_EQ(read_end(pair.client), ECONNRESET);
    EXPECT_EQ(read_end(pair.server), ECONNRESET);
    EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
    EXPECT_EQ(record_failures(side, reason), before + 1);
    EXPECT_EQ(record_failures(), all + 1) << "counted once, where it was seen";
    EXPECT_EQ(client_->recycled, 0);
  }

  std::optional<Wire> wire_;
};

TEST_P(MeshRecords, OneFlippedBitIsCountedAndPassedOnAsRst) {
  for (const bool to_server : {true, false})
    expect_reset(to_server, Wire::Harm::Flip, RecordFailure::BadRecord);
}

TEST_P(MeshRecords, ATruncationIsCountedAndPassedOnAsRst) {
  for (const bool to_server : {true, false})
    expect_reset(to_server, Wire::Harm::Cut, RecordFailure::Truncated);
}

// What applications and agents do every day is none of it.
TEST_P(MeshRecords, AnRstIsNoFailureOfRecords) {
  for (const bool client : {true, false}) {
    Pair pair = connect_pair(entry_);
    ASSERT_TRUE(send_all(pair.client, "x"));
    ASSERT_EQ(receive(pair.server, 1), "x");
    reset(client ? pair.client : pair.server);
    EXPECT_EQ(read_end(client ? pair.server : pair.client), ECONNRESET);
    EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
  }
  exchange();
  EXPECT_TRUE(eventually([&] { return client_->left() == 1; }));
  client_->drop();  // an idle leg goes without a word
  EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
  EXPECT_EQ(pool_->counters().idle_closed.get(), 1u);
  EXPECT_EQ(record_failures(), 0u);
}

INSTANTIATE_TEST_SUITE_P(By, MeshRecords, ::testing::Values(false, true),
                         [](const auto& by) { return by.param ? "kernel" : "agent"; });

// The test is an agent that has come in.
class MeshRequests : public MeshLegTest {
 protected:
  // What `stream` makes of these bytes, for the test to do harm to.
  static std::string sealed(ktls::Stream& stream, std::span<const std::byte> bytes) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    const UniqueFd in(ends[0]), out(ends[1]);
    EXPECT_EQ(stream.write(in.get(), bytes).bytes, bytes.size());
    std::array<char, 1024> record;
    const ssize_t got = ::recv(out.get(), record.data(), record.size(), MSG_DONTWAIT);
    return {record.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0))};
  }
};

TEST_F(MeshRequests, WhoNeverAsksEndsInTime) {
  PoolOptions options;
  options.handshake_timeout = 1s;  // for the handshake, and again for the request
  start_mesh(options);
  UniqueFd peer = client_socket();
  const auto stream = secured(peer);
  ASSERT_TRUE(stream);
  EXPECT_TRUE(failed_within(peer, kPatience));
  EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
  EXPECT_EQ(dial_failures(DialReason::Handshake), 1u);
  EXPECT_EQ(handshakes(Side::Inbound).full.get(), 1u) << "the handshake itself was fine";
  EXPECT_EQ(failures(Side::Inbound, ktls::HandshakeFailure::Timeout), 0u);
}

TEST_F(MeshRequests, WhoAsksForNonsenseIsRefused) {
  start_mesh();
  const auto good = encode(MeshRequest{port_of(backend_), 1});
  std::vector<std::vector<std::byte>> requests;
  for (const std::size_t wrong : {0u, 1u, 6u, 7u}) {  // version, flags, what must be 0
    requests.emplace_back(good.begin(), good.end());
    requests.back()[wrong] ^= std::byte{0x40};
  }
  const auto nowhere = encode(MeshRequest{0, 1});
  requests.emplace_back(nowhere.begin(), nowhere.end());
  requests.emplace_back(good.begin(), good.begin() + 5);  // and then the end
  std::uint64_t refused = 0;
  for (const auto& request : requests) {
    UniqueFd peer = client_socket();
    const auto stream = secured(peer);
    ASSERT_TRUE(stream);
    ASSERT_EQ(stream->write(peer.get(), request).bytes, request.size());
    if (request.size() < good.size()) {
      ASSERT_EQ(stream->close_notify(peer.get()).kind, Io::Kind::Bytes);
    }
    EXPECT_TRUE(failed_within(peer, kPatience)) << refused;
    EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
    EXPECT_EQ(dial_failures(DialReason::BadRequest), ++refused);
  }
  EXPECT_EQ(record_failures(), 0u) << "every record was fine";
  exchange();
}

TEST_F(MeshRequests, ARequestThatWasChangedOnItsWayIsABadRecord) {
  start_mesh();
  UniqueFd peer = client_socket();
  const auto stream = secured(peer);
  ASSERT_TRUE(stream);
  std::string record = sealed(*stream, encode(MeshRequest{port_of(backend_), 1}));
  ASSERT_GT(record.size(), kMeshRequestBytes);
  record.back() ^= 1;
  ASSERT_TRUE(send_all(peer, record));
  EXPECT_TRUE(failed_within(peer, kPatience));
  EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
  EXPECT_EQ(record_failures(Side::Inbound, RecordFailure::BadRecord), 1u);
  EXPECT_EQ(pool_->counters().reset.get(), 1u);
}

}  // namespace
}  // namespace mesh::relay::test
