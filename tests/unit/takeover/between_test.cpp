// SPDX-License-Identifier: Apache-2.0
// What becomes established between the snapshot of a takeover and its end: it copies where it is,
// beside those that are halted, and follows after Go with all that is on its way.
#include "tests/unit/relay/mesh_leg_fixture.h"
#include "tests/unit/takeover/pools_fixture.h"

namespace mesh::relay::test {
namespace {

class Between : public TakeoverPools {
 protected:
  // One connection is halted; of the other, which was accepted before that, the server answers now.
  void SetUp() override {
    PoolOptions options;
    options.workers = 1;
    start(options, 16 * 1024);
    all_.push_back({connect_pair(), 1});
    exchange(all_);
    ASSERT_EQ(::listen(backend_.get(), 0), 0);
    UniqueFd in_queue = client_socket();
    ASSERT_EQ(connect_to(in_queue, port_of(backend_)), 0);
    Traffic late{{client_socket(16 * 1024), {}}, 2};
    ASSERT_EQ(connect_to(late.pair.client, port_), 0);
    ASSERT_TRUE(eventually([&] { return pool_->active() == 2; }));

    ASSERT_NO_FATAL_FAILURE(offer());
    ASSERT_EQ(taken_.size(), 1u);

    (void)accept_backend();
    ASSERT_EQ(::listen(backend_.get(), 16), 0);
    late.pair.server = accept_backend();
    all_.push_back(std::move(late));
  }
  // Until nobody on the way takes any more.
  static void fill(Traffic& one) {
    for (int way : {0, 1}) {
      std::uint64_t before = 0;
      do {
        before = one.sent[way];
        for (int i = 0; i < 50; ++i) {
          one.send(way, 4096);
          std::this_thread::sleep_for(1ms);
        }
      } while (one.sent[way] != before);
    }
  }
  void expect_all_to_arrive_and_end() {
    for (auto& one : all_)
      for (int way : {0, 1}) one.receive_all(way);
    exchange(all_);
    for (auto& one : all_) {
      ASSERT_EQ(::shutdown(one.pair.client.get(), SHUT_WR), 0);
      EXPECT_EQ(read_end(one.pair.server), 0);
      one.pair.server.reset();
      EXPECT_EQ(read_end(one.pair.client), 0);
    }
    EXPECT_TRUE(eventually([&] { return pool_->counters().completed.get() == all_.size(); }));
  }

  std::vector<Traffic> all_;
};

TEST_F(Between, ItCopiesHereUntilGoAndThenFollowsWithAllItsBytes) {
  Traffic& halted = all_[0];
  Traffic& late = all_[1];
  for (int way : {0, 1}) {
    late.send(way, 1000);
    late.receive_all(way);
    halted.send(way, 1000);
  }
  fill(late);
  for (int way : {0, 1}) EXPECT_EQ(halted.receive(way, 1000), EAGAIN);
  EXPECT_EQ(halted.received[0] + halted.received[1], 2000u) << "nobody touches it";

  ASSERT_TRUE(successor_->ready());
  ASSERT_TRUE(next_->start_accepting());
  for (auto& one : taken_) ASSERT_TRUE(next_->adopt(std::move(one)));
  int followed = 0;
  successor_->follow([&](TakenOver one) {
    EXPECT_EQ(one.from.state.client.port, port_of(late.pair.client));
    EXPECT_GT(one.from.state.to_server.rest.size(), 0u);
    EXPECT_GT(one.from.state.to_client.rest.size(), 0u);
    EXPECT_TRUE(next_->adopt(std::move(one)));
    ++followed;
  });
  old_->stop();
  EXPECT_EQ(followed, 1);
  EXPECT_EQ(pool_->counters().handed_over.get(), 2u);
  EXPECT_EQ(pool_->counters().reset.get() + pool_->counters().aborted.get(), 0u);
  pool_ = std::move(next_);
  expect_all_to_arrive_and_end();
}

TEST_F(Between, WithoutGoItStaysWhereItIs) {
  fill(all_[1]);
  successor_->shut();
  old_->stop();
  EXPECT_EQ(seen_.resumed, 1);
  EXPECT_EQ(pool_->counters().handed_over.get(), 0u);
  taken_.clear();
  expect_all_to_arrive_and_end();
}

class MeshBetween : public MeshLegTest, protected Takeovers {
 protected:
  // Has the mesh listener of the one before, and its dialer.
  std::unique_ptr<Pool> pool_for(Successor& successor) {
    PoolOptions options;
    options.workers = 1;
    options.accepting = false;
    auto next = Pool::create(options);
    auto listeners = successor.freeze();
    EXPECT_TRUE(next && listeners);
    for (auto& one : *listeners)
      if (one.local.port == mesh_port_) {
        EXPECT_TRUE((*next)->listen(std::move(one.socket), one.netns_cookie, server_));
      }
    return std::move(*next);
  }
  // The relay that is left has begun none of what it counts.
  void TearDown() override { client_->drop(); }
};

// The former agent shakes hands when the snapshot has gone and the successor has all the others.
TEST_F(MeshBetween, ALegThatIsMadeAfterGoFollowsWithItsKeys) {
  start_mesh();
  const UniqueFd peer = client_socket();
  ASSERT_EQ(connect_to(peer, mesh_port_), 0);
  ASSERT_TRUE(eventually([&] { return pool_->active() == 1; }));
  Seen seen;
  auto [old_end, new_end] = channel();
  auto old = handover(*pool_, seen);
  old->begin(std::move(old_end));
  auto successor = Successor::over(std::move(new_end));
  ASSERT_TRUE(successor);
  auto next = pool_for(**successor);
  const auto taken = (*successor)->take();
  ASSERT_TRUE(taken);
  ASSERT_TRUE(taken->empty());
  ASSERT_TRUE((*successor)->ready());
  ASSERT_TRUE(next->start_accepting());
  int followed = 0;
  std::thread following([&] {
    (*successor)->follow([&](TakenOver one) {
      EXPECT_EQ(one.from.state.security->peer.id.uri(), mesh_.uri("caller"));
      EXPECT_TRUE(next->adopt(std::move(one)));
      ++followed;
    });
  });

  const auto stream = shaken(peer);
  ASSERT_TRUE(stream);
  const auto put = [&](std::span<const std::byte> bytes) {
    EXPECT_EQ(stream->write(peer.get(), bytes).bytes, bytes.size());
    EXPECT_TRUE(eventually([&] { return !stream->unsent() || stream->flush(peer.get()).bytes; }));
  };
  const auto get = [&](std::size_t size) {
    std::string got;
    std::array<std::byte, 64> bytes;
    EXPECT_TRUE(eventually([&] {
      const Io io = stream->read(peer.get(), std::span(bytes).first(size - got.size()));
      if (io.kind == Io::Kind::Bytes)
        got.append(reinterpret_cast<const char*>(bytes.data()), io.bytes);
      return got.size() == size || io.kind == Io::Kind::Failed || io.kind == Io::Kind::Eof;
    }));
    return got;
  };
  put(encode(MeshRequest{port_of(backend_), 7}));
  const UniqueFd server = accept_backend();
  EXPECT_EQ(get(kMeshReplyBytes).size(), kMeshReplyBytes);
  following.join();
  old->stop();
  EXPECT_EQ(followed, 1);
  EXPECT_EQ(pool_->counters().handed_over.get(), 1u);
  // Its records go on where those of the former agent ended.
  put(std::as_bytes(std::span("ping", 4)));
  EXPECT_EQ(receive(server, 4), "ping");
  ASSERT_TRUE(send_all(server, "pong"));
  EXPECT_EQ(get(4), "pong");
  EXPECT_EQ(next->counters().taken_over.get(), 1u);
}

}  // namespace
}  // namespace mesh::relay::test
