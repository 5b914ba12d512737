// SPDX-License-Identifier: Apache-2.0
#include "agent/base/netns.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <thread>

#include "tests/support/no_descriptors.h"

namespace mesh {
namespace {

TEST(SocketsInNetns, AFirstCallThatFailsDoesNotSpoilTheThread) {
  const auto own = open_own_netns();
  ASSERT_TRUE(own);
  const auto make = [&] { return sockets_in_netns(own->get(), AF_INET, SOCK_STREAM, 1); };
  std::thread([&] {
    {
      const test::NoDescriptors none;
      const auto made = make();
      ASSERT_FALSE(made);
      EXPECT_EQ(made.error().code, std::errc::too_many_files_open);
    }
    // Without CAP_SYS_ADMIN it gets as far as setns(2).
    if (const auto made = make(); !made) {
      EXPECT_EQ(made.error().code, std::errc::operation_not_permitted) << made.error().what;
    }
  }).join();
}

}  // namespace
}  // namespace mesh
