// SPDX-License-Identifier: Apache-2.0
#include "agent/takeover/channel.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <thread>

namespace mesh::takeover {
namespace {

using namespace std::chrono_literals;

std::chrono::nanoseconds thread_time() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

// Without these two, RLIMIT_NOFILE bounds the descriptors that are on their way. Of the calling
// thread only.
void drop_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  ASSERT_EQ(::syscall(SYS_capget, &header, data), 0);
  data[0].effective &= ~(1u << CAP_SYS_ADMIN | 1u << CAP_SYS_RESOURCE);
  ASSERT_EQ(::syscall(SYS_capset, &header, data), 0);
}

TEST(TakeoverChannel, WaitsWithoutSpinningWhileTooManyDescriptorsAreOnTheirWay) {
  constexpr rlim_t kMost = 64;
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  Channel channel{UniqueFd(ends[0])};
  Channel peer{UniqueFd(ends[1])};
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit few = before;
  few.rlim_cur = kMost;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  std::thread([&] {
    drop_capabilities();
    const UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    const std::array<int, Channel::kMaxFds> fds{null.get(), null.get(), null.get(), null.get(),
                                                null.get(), null.get(), null.get(), null.get()};
    Status sent;
    std::chrono::nanoseconds spent{};
    std::size_t frames = 0;
    for (; sent && frames < 100; ++frames) {
      const auto begin = thread_time();
      sent = channel.send(FrameType::Connection, {}, fds, 500ms);
      spent = thread_time() - begin;
    }
    ASSERT_FALSE(sent) << "all were taken";
    EXPECT_EQ(sent.error().code, std::errc::timed_out);
    EXPECT_LT(spent, 100ms) << "of 500 ms";
    // It goes on as soon as the other side has taken some out.
    for (std::size_t i = 0; i + 1 < frames; ++i) ASSERT_TRUE(peer.receive(5s));
    EXPECT_TRUE(channel.send(FrameType::Connection, {}, fds, 20s));
  }).join();
  EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

}  // namespace
}  // namespace mesh::takeover
