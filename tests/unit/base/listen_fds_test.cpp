// SPDX-License-Identifier: Apache-2.0
#include "agent/base/listen_fds.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace mesh {
namespace {

constexpr int kFirst = 300;  // where nothing else is

// Two of them, as a service manager passes them: they go with no exec.
class PassedFds : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int fd : {kFirst, kFirst + 1}) ASSERT_EQ(::dup2(STDERR_FILENO, fd), fd);
  }
  void TearDown() override {
    for (int fd : {kFirst, kFirst + 1}) (void)::close(fd);
  }
  static void say(const std::string& fds, const char* names) {
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
    ::setenv("LISTEN_FDS", fds.c_str(), 1);
    ::setenv("LISTEN_FDNAMES", names, 1);
  }
  static int flags(int fd) { return ::fcntl(fd, F_GETFD); }
};

TEST(ListenFds, AreNamedInTheirOrder) {
  const auto none = parse_listen_fds(nullptr, nullptr, nullptr, 7);
  ASSERT_TRUE(none);
  EXPECT_TRUE(none->empty());
  const auto two = parse_listen_fds("7", "2", "a:b", 7);
  ASSERT_TRUE(two) << two.error().what;
  EXPECT_EQ(*two, (std::vector<std::string>{"a", "b"}));
  const auto unnamed = parse_listen_fds("7", "2", nullptr, 7);
  ASSERT_TRUE(unnamed);
  EXPECT_EQ(unnamed->size(), 2u);
  const auto empty_name = parse_listen_fds("7", "1", "", 7);
  ASSERT_TRUE(empty_name);
  EXPECT_EQ(*empty_name, std::vector<std::string>{""});
}

TEST(ListenFds, OfAnotherProcessAreNotOurs) {
  const auto other = parse_listen_fds("8", "2", "a:b", 7);
  ASSERT_TRUE(other);
  EXPECT_TRUE(other->empty());
}

TEST(ListenFds, ThatContradictThemselvesAreRefused) {
  for (const char* pid : {"", "x", "-7", "7 ", "99999999999999999999"})
    EXPECT_FALSE(parse_listen_fds(pid, "1", "a", 7)) << pid;
  for (const char* count : {"", "-1", "x", "1x", "65537", "99999999999999999999"})
    EXPECT_FALSE(parse_listen_fds("7", count, "a", 7)) << count;
  EXPECT_FALSE(parse_listen_fds("7", "2", "a", 7));
  EXPECT_FALSE(parse_listen_fds("7", "2", "a:b:c", 7));
  const std::string many(1 << 20, ':');
  EXPECT_FALSE(parse_listen_fds("7", "2", many.c_str(), 7));
}

TEST_F(PassedFds, AreTakenAndStayHere) {
  say("2", "a:b");
  {
    const auto taken = take_listen_fds(kFirst);
    ASSERT_TRUE(taken) << taken.error().what;
    ASSERT_EQ(taken->size(), 2u);
    EXPECT_EQ(taken->at(1).name, "b");
    EXPECT_EQ(taken->at(1).fd.get(), kFirst + 1);
    for (int fd : {kFirst, kFirst + 1}) EXPECT_EQ(flags(fd), FD_CLOEXEC);
    EXPECT_EQ(std::getenv("LISTEN_FDS"), nullptr);
  }
  EXPECT_EQ(flags(kFirst), -1);
}

TEST_F(PassedFds, WithNamesThatDoNotFitAreClosed) {
  say("2", "a");
  EXPECT_FALSE(take_listen_fds(kFirst));
  for (int fd : {kFirst, kFirst + 1}) EXPECT_EQ(flags(fd), -1) << fd;
  EXPECT_EQ(std::getenv("LISTEN_FDNAMES"), nullptr);
}

TEST_F(PassedFds, ThatAreNotAllThereAreClosed) {
  say("3", "a:b:c");
  EXPECT_FALSE(take_listen_fds(kFirst));
  for (int fd : {kFirst, kFirst + 1}) EXPECT_EQ(flags(fd), -1) << fd;
}

TEST_F(PassedFds, OfAnUnknownNumberGoWithAnExec) {
  say("many", "a");
  EXPECT_FALSE(take_listen_fds(kFirst));
  for (int fd : {kFirst, kFirst + 1}) EXPECT_EQ(flags(fd), FD_CLOEXEC) << fd;
}

TEST_F(PassedFds, OfAnotherProcessAreLeftAlone) {
  say("2", "a:b");
  ::setenv("LISTEN_PID", std::to_string(::getppid()).c_str(), 1);
  const auto taken = take_listen_fds(kFirst);
  ASSERT_TRUE(taken);
  EXPECT_TRUE(taken->empty());
  for (int fd : {kFirst, kFirst + 1}) EXPECT_EQ(flags(fd), 0) << fd;
}

}  // namespace
}  // namespace mesh
