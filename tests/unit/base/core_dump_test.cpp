// SPDX-License-Identifier: Apache-2.0
#include "agent/base/core_dump.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

namespace mesh {
namespace {

// The wait status of a child that aborts in a directory of its own, at the highest limit there is:
// what a core goes to need not ask for the limit.
int status_of_abort(bool forbid) {
  std::string dir = (std::filesystem::temp_directory_path() / "mesh-core-XXXXXX").string();
  EXPECT_NE(::mkdtemp(dir.data()), nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::chdir(dir.c_str()) != 0 || (forbid && !forbid_core())) ::_exit(1);
    rlimit limit{};
    if (::getrlimit(RLIMIT_CORE, &limit) != 0) ::_exit(2);
    limit.rlim_cur = limit.rlim_max;
    if (::setrlimit(RLIMIT_CORE, &limit) != 0) ::_exit(3);
    (void)std::signal(SIGABRT, SIG_DFL);
    std::abort();
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  std::filesystem::remove_all(dir);
  return status;
}

TEST(CoreDump, NoneIsLeftAtAnyLimit) {
  const int without = status_of_abort(false);
  ASSERT_TRUE(WIFSIGNALED(without)) << without;
  const int with = status_of_abort(true);
  ASSERT_TRUE(WIFSIGNALED(with)) << with;
  EXPECT_FALSE(WCOREDUMP(with));
  if (!WCOREDUMP(without)) GTEST_SKIP() << "this system makes no cores: nothing was shown";
}

TEST(CoreDump, BothWaysAreShut) {
  const pid_t child = ::fork();
  if (child == 0) {
    rlimit limit{1, 1};
    const bool shut = forbid_core() && ::prctl(PR_GET_DUMPABLE) == 0 &&
                      ::getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_cur == 0;
    ::_exit(shut ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace mesh
