// SPDX-License-Identifier: Apache-2.0
#include "agent/base/sock_diag.h"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <thread>

namespace mesh {
namespace {

struct Pair {
  UniqueFd client;
  UniqueFd server;
  TcpTuple tuple;  // the client's
};

class SockDiagTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const SockAddr any({*Address::parse(GetParam()), 0});
    listener_ = UniqueFd(::socket(any.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(listener_.get(), any.get(), any.length), 0);
    ASSERT_EQ(::listen(listener_.get(), 128), 0);
  }
  Pair connect() {
    const SockAddr to(*local_endpoint(listener_.get()));
    Pair pair{UniqueFd(::socket(to.family(), SOCK_STREAM | SOCK_CLOEXEC, 0)), {}, {}};
    EXPECT_EQ(::connect(pair.client.get(), to.get(), to.length), 0);
    pair.server = UniqueFd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    pair.tuple = {*local_endpoint(pair.client.get()), *peer_endpoint(pair.client.get())};
    return pair;
  }

  UniqueFd listener_;
};

bool may_administer() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  return ::syscall(SYS_capget, &header, data) == 0 &&
         (data[0].effective & (1u << CAP_NET_ADMIN)) != 0;
}

// Of the calling thread alone.
bool drop_net_admin() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (::syscall(SYS_capget, &header, data) != 0) return false;
  data[0].effective &= ~(1u << CAP_NET_ADMIN);
  return ::syscall(SYS_capset, &header, data) == 0;
}

TEST_P(SockDiagTest, EachOfABatchHasItsOwnAnswer) {
  auto diag = SockDiag::open_here();
  ASSERT_TRUE(diag) << diag.error().what;
  std::vector<Pair> open;
  std::vector<TcpTuple> asked;
  for (std::size_t i = 0; i < SockDiag::kBatch; ++i) {
    open.push_back(connect());
    asked.push_back(open.back().tuple);
  }
  // Nobody's, while its port still listens: the kernel finds the listener.
  asked[3] = {asked[3].remote, {asked[3].remote.address, 1}};
  // Nobody's, on a port where nobody listens.
  asked[5] = {{asked[5].local.address, 1}, {asked[5].remote.address, 2}};
  for (int round = 0; round < 3; ++round) {
    const auto answers = diag->ulps(asked);
    ASSERT_EQ(answers.size(), asked.size());
    for (std::size_t i = 0; i < asked.size(); ++i) {
      SCOPED_TRACE(i);
      if (i == 3 || i == 5) {
        ASSERT_FALSE(answers[i]);
        EXPECT_EQ(answers[i].error().what, "sock_diag knows no such socket");
      } else if (may_administer()) {
        ASSERT_TRUE(answers[i]) << answers[i].error().what;
        EXPECT_EQ(*answers[i], std::nullopt);
      }
    }
  }
}

TEST_P(SockDiagTest, WithoutThePrivilegeItIsUnknown) {
  const Pair pair = connect();
  std::thread([&] {
    ASSERT_TRUE(drop_net_admin());
    auto diag = SockDiag::open_here();
    ASSERT_TRUE(diag) << diag.error().what;
    const auto answers = diag->ulps(std::span(&pair.tuple, 1));
    ASSERT_FALSE(answers.at(0));
    EXPECT_EQ(answers[0].error().what, "sock_diag says it to CAP_NET_ADMIN only");
  }).join();
}

TEST_P(SockDiagTest, MoreThanABatchIsNotAsked) {
  auto diag = SockDiag::open_here();
  ASSERT_TRUE(diag) << diag.error().what;
  const Pair pair = connect();
  const auto answers = diag->ulps(std::vector(SockDiag::kBatch + 1, pair.tuple));
  ASSERT_EQ(answers.size(), SockDiag::kBatch + 1);
  ASSERT_FALSE(answers.back());
  EXPECT_EQ(answers.back().error().what, "sock_diag has not answered");
}

INSTANTIATE_TEST_SUITE_P(By, SockDiagTest, ::testing::Values("127.0.0.1", "::1"),
                         [](const auto& family) {
                           return std::string_view(family.param) == "::1" ? "ipv6" : "ipv4";
                         });

}  // namespace
}  // namespace mesh
