// SPDX-License-Identifier: Apache-2.0
// What may be sent under one key (RFC 8446 5.5): a connection that comes near to it ends, and a leg
// that has used much of it carries no other.
#include <tuple>

#include "tests/unit/relay/mesh_leg_fixture.h"

namespace mesh::relay::test {
namespace {

// What it is unless a test says otherwise: 2^24.5.
static_assert(ktls::KeyLimit::kGcmRecords == 23'726'566);
TEST(MeshKeyLimit, IsThatOfTheRfc) {
  EXPECT_EQ(ktls::ContextOptions{}.limit_records, ktls::KeyLimit::kGcmRecords);
}

constexpr std::uint64_t kRecords = 64;  // full ones of 16 KiB: 1 MiB
constexpr std::size_t kMuch = 2u << 20;
// What one read or write may carry before anybody asks; in the 64th of the true limit that is kept
// there is room for it.
constexpr std::size_t kAtOnce = 256u << 10;

// Of which agent the key is small, and which way the bytes go.
struct LimitCase {
  Side side;
  bool to_server;
};

class MeshKeyLimitOf : public MeshLegTest,
                       public ::testing::WithParamInterface<std::tuple<LimitCase, bool>> {
 protected:
  void SetUp() override { want_records_of_the(std::get<1>(GetParam())); }
};

TEST_P(MeshKeyLimitOf, EndsAConnectionInTimeWithRstBothWays) {
  const auto [side, to_server] = std::get<0>(GetParam());
  (side == Side::Outbound ? outbound_ : inbound_).limit_records = kRecords;
  start_mesh();
  Pair pair = connect_pair(entry_);
  UniqueFd& from = to_server ? pair.client : pair.server;
  UniqueFd& to = to_server ? pair.server : pair.client;
  const std::string bytes = pattern(kMuch, 1);
  std::thread sender([&] {
    (void)send_all(from, bytes);  // sockets may take more than what is passed on
    EXPECT_TRUE(failed_within(from, kPatience));
  });
  int error = 0;
  const std::string got = receive(to, bytes.size(), &error);
  sender.join();
  EXPECT_EQ(error, ECONNRESET);
  EXPECT_LE(got.size(), kRecords * ktls::kMaxPlain + kAtOnce);
  EXPECT_TRUE(got == bytes.substr(0, got.size()));
  EXPECT_TRUE(eventually([&] { return handshakes(side).key_limit.get() == 1; }));
  EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
  EXPECT_EQ(handshakes(Side::Outbound).key_limit.get() + handshakes(Side::Inbound).key_limit.get(),
            1u);
  EXPECT_EQ(client_->recycled, 0);
}

std::string name_of(const ::testing::TestParamInfo<std::tuple<LimitCase, bool>>& one) {
  const auto& [limit, kernel] = one.param;
  return std::string(to_string(limit.side)) + (limit.to_server ? "_to_server" : "_to_client") +
         (kernel ? "_kernel" : "_agent");
}

INSTANTIATE_TEST_SUITE_P(Either, MeshKeyLimitOf,
                         ::testing::Combine(::testing::Values(LimitCase{Side::Outbound, true},
                                                              LimitCase{Side::Outbound, false},
                                                              LimitCase{Side::Inbound, true},
                                                              LimitCase{Side::Inbound, false}),
                                            ::testing::Bool()),
                         name_of);

class MeshKeyLimitLegs : public MeshLegTest, public ::testing::WithParamInterface<bool> {
 protected:
  void SetUp() override { want_records_of_the(GetParam()); }
};

// Three times 300 KiB under a limit of 1 MiB: the third would not have come to its end on the leg
// of the first two.
TEST_P(MeshKeyLimitLegs, ALegThatHasUsedHalfOfItIsNotUsedAgain) {
  outbound_.limit_records = inbound_.limit_records = kRecords;
  start_mesh();
  const std::string bytes = pattern(300u << 10, 2);
  const auto carry = [&] {
    Pair pair = connect_pair(entry_);
    std::thread sender([&] {
      EXPECT_TRUE(send_all(pair.client, bytes));
      EXPECT_EQ(::shutdown(pair.client.get(), SHUT_WR), 0);
    });
    EXPECT_TRUE(receive(pair.server, bytes.size() + 1) == bytes);
    sender.join();
    pair.server.reset();
    EXPECT_EQ(read_end(pair.client), 0);
  };
  carry();
  ASSERT_TRUE(eventually([&] { return client_->left() == 1; }));
  carry();
  EXPECT_TRUE(eventually([&] { return pool_->active() == 0; })) << "the leg still waits";
  EXPECT_EQ(client_->left(), 0u);
  carry();
  EXPECT_TRUE(eventually([&] { return client_->left() == 1; }));
  EXPECT_EQ(handshakes(Side::Outbound).reused.get(), 1u);
  EXPECT_EQ(handshakes(Side::Outbound).full.get() + handshakes(Side::Outbound).resumed.get(), 2u);
  EXPECT_EQ(handshakes(Side::Outbound).key_limit.get() + handshakes(Side::Inbound).key_limit.get(),
            0u);
}

INSTANTIATE_TEST_SUITE_P(By, MeshKeyLimitLegs, ::testing::Bool(),
                         [](const auto& by) { return by.param ? "kernel" : "agent"; });

}  // namespace
}  // namespace mesh::relay::test
