// SPDX-License-Identifier: Apache-2.0
// What a service manager hears, on a real datagram socket.
#include "agent/base/service_manager.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <future>

namespace mesh {
namespace {

class Manager {
 public:
  // As $NOTIFY_SOCKET has it.
  explicit Manager(const std::string& name) : name_(name) { listen(); }
  ~Manager() { close(); }
  Manager(const Manager&) = delete;
  Manager& operator=(const Manager&) = delete;

  void listen() {
    fd_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name_.data(), name_.size());
    if (name_[0] == '@') address.sun_path[0] = '\0';
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name_.size());
    ASSERT_EQ(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), length), 0);
  }
  void close() {
    fd_.reset();
    if (name_[0] != '@') (void)::unlink(name_.c_str());
  }
  // The next datagram, and what came with it.
  std::string heard(UniqueFd& with) {
    std::array<char, 4096> buffer;
    iovec vector{buffer.data(), buffer.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t n = ::recvmsg(fd_.get(), &message, MSG_CMSG_CLOEXEC);
    if (const cmsghdr* rights = CMSG_FIRSTHDR(&message)) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(rights), sizeof fd);
      with.reset(fd);
    }
    return n < 0 ? "" : std::string(buffer.data(), static_cast<std::size_t>(n));
  }
  // The next datagram, or nothing.
  std::string heard() {
    std::array<char, 4096> buffer;
    const ssize_t n = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
    return n < 0 ? "" : std::string(buffer.data(), static_cast<std::size_t>(n));
  }

 private:
  std::string name_;
  UniqueFd fd_;
};

std::string scratch_name() {
  return (std::filesystem::temp_directory_path() / fmt::format("mesh-notify-{}", ::getpid()))
      .string();
}

void expect_life(const std::string& address) {
  Manager manager(address);
  auto agent = ServiceManager::at(address.c_str());
  ASSERT_TRUE(agent) << agent.error().what;
  EXPECT_EQ(manager.heard(), "");
  ASSERT_TRUE(agent->tell({"no\ncatalog", false}));
  EXPECT_EQ(manager.heard(), "STATUS=no catalog\n");
  ASSERT_TRUE(agent->tell({"no\ncatalog", false}));
  EXPECT_EQ(manager.heard(), "") << "nothing has changed";
  ASSERT_TRUE(agent->tell({std::nullopt, false}));
  EXPECT_EQ(manager.heard(), "READY=1\nSTATUS=ready\n");
  ASSERT_TRUE(agent->tell({std::nullopt, true}));
  EXPECT_EQ(manager.heard(), "STOPPING=1\nSTATUS=draining\n");
}

TEST(ServiceManager, HearsOfEveryChangeAtAPath) { expect_life(scratch_name()); }

TEST(ServiceManager, HearsOfEveryChangeAtAnAbstractName) {
  expect_life(fmt::format("@mesh-notify-{}", ::getpid()));
}

TEST(ServiceManager, GetsDescriptorsToKeep) {
  Manager manager(scratch_name());
  auto agent = ServiceManager::at(scratch_name().c_str());
  ASSERT_TRUE(agent);
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  UniqueFd read_end(ends[0]), write_end(ends[1]);
  ASSERT_TRUE(agent->store("name", write_end));
  write_end.reset();
  UniqueFd kept;
  EXPECT_EQ(manager.heard(kept), "FDSTORE=1\nFDNAME=name\nFDPOLL=0\n");
  ASSERT_TRUE(kept);
  ASSERT_EQ(::write(kept.get(), "x", 1), 1);
  char got = 0;
  ASSERT_EQ(::read(read_end.get(), &got, 1), 1);
  ASSERT_TRUE(agent->remove("name"));
  EXPECT_EQ(manager.heard(), "FDSTOREREMOVE=1\nFDNAME=name\n");
  ASSERT_TRUE(agent->main_process(77));
  EXPECT_EQ(manager.heard(), "MAINPID=77\n");
}

TEST(ServiceManager, IsWaitedForUntilItHasHeardAll) {
  Manager manager(scratch_name());
  auto agent = ServiceManager::at(scratch_name().c_str());
  ASSERT_TRUE(agent);
  EXPECT_EQ(agent->settle(std::chrono::milliseconds(10)).error().code, std::errc::timed_out);
  UniqueFd barrier;
  EXPECT_EQ(manager.heard(barrier), "BARRIER=1\n");
  EXPECT_TRUE(barrier);
  auto settled = std::async(std::launch::async,
                            [&] { return agent->settle(std::chrono::seconds(20)).has_value(); });
  std::string heard;
  while (heard.empty()) heard = manager.heard(barrier);
  barrier.reset();
  EXPECT_TRUE(settled.get());
}

TEST(ServiceManager, IsToldAgainWhatItMissed) {
  const std::string path = scratch_name();
  Manager manager(path);
  auto agent = ServiceManager::at(path.c_str());
  ASSERT_TRUE(agent);
  manager.close();
  EXPECT_FALSE(agent->tell({std::nullopt, false}));
  manager.listen();
  // One that does not listen blocks nobody.
  int full = 0;
  while (full < 100'000 && agent->tell({std::to_string(full), false})) ++full;
  EXPECT_LT(full, 100'000);
  EXPECT_FALSE(agent->tell({std::nullopt, false}));
  while (!manager.heard().empty()) continue;
  ASSERT_TRUE(agent->tell({std::nullopt, false}));
  EXPECT_EQ(manager.heard(), "READY=1\nSTATUS=ready\n");
}

TEST(ServiceManager, WithoutOneNothingIsSaid) {
  for (const char* none : {static_cast<const char*>(nullptr), ""}) {
    auto agent = ServiceManager::at(none);
    ASSERT_TRUE(agent);
    EXPECT_TRUE(agent->tell({std::nullopt, false}));
  }
}

TEST(ServiceManager, AnAddressThatCannotBeIsRefused) {
  EXPECT_FALSE(ServiceManager::at("relative"));
  EXPECT_FALSE(ServiceManager::at("vsock:2:1"));
  std::string too_long(sizeof(sockaddr_un::sun_path), 'x');
  too_long[0] = '/';
  EXPECT_FALSE(ServiceManager::at(too_long.c_str()));
}

}  // namespace
}  // namespace mesh
