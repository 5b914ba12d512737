// SPDX-License-Identifier: Apache-2.0
// The program itself leaves no core, unless it is told to.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "agent/base/unique_fd.h"
#include "tests/support/eventually.h"

namespace mesh {
namespace {

namespace fs = std::filesystem;

// The soft limit for cores of `pid`, as /proc says it.
std::string core_limit(pid_t pid) {
  std::ifstream limits("/proc/" + std::to_string(pid) + "/limits");
  const std::string name = "Max core file size";
  for (std::string line; std::getline(limits, line);)
    if (line.starts_with(name)) {
      const auto begin = line.find_first_not_of(' ', name.size());
      return line.substr(begin, line.find(' ', begin) - begin);
    }
  return "";
}

// The wait status of a mesh-agent that is aborted while it waits for its standard input.
class CoreDumpRun : public ::testing::Test {
 protected:
  void SetUp() override {
    MESH_NEED_ROOT();
    ASSERT_NE(::mkdtemp(dir_.data()), nullptr);
    rlimit limit{};
    ASSERT_EQ(::getrlimit(RLIMIT_CORE, &limit), 0);
    highest_ = limit.rlim_max;
    if (highest_ == 0) GTEST_SKIP() << "nothing here may leave a core";
  }
  void TearDown() override { fs::remove_all(dir_); }

  int status_of_abort(std::vector<std::string> flags) {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const UniqueFd in(ends[0]);
    const UniqueFd hold(ends[1]);
    std::vector<std::string> argv{MESH_AGENT_BINARY, "config", "write", "--config-dir", dir_, "-"};
    argv.insert(argv.begin() + 1, flags.begin(), flags.end());
    std::vector<char*> words;
    for (auto& word : argv) words.push_back(word.data());
    words.push_back(nullptr);
    const pid_t child = ::fork();
    if (child == 0) {
      const rlimit all{highest_, highest_};
      if (::setrlimit(RLIMIT_CORE, &all) != 0 || ::chdir(dir_.c_str()) != 0 ||
          ::dup2(in.get(), 0) != 0)
        ::_exit(126);
      ::execv(words[0], words.data());
      ::_exit(127);
    }
    // It reads from the pipe: everything before that is done.
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    std::string where;
    while (std::chrono::steady_clock::now() < limit) {
      std::ifstream wchan("/proc/" + std::to_string(child) + "/syscall");
      std::getline(wchan, where);
      if (where.starts_with("0 0x0 ")) break;  // read(0, ...)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT_TRUE(where.starts_with("0 0x0 ")) << where;
    limit_ = core_limit(child);
    // The limit is not what holds where the pattern is a pipe.
    const rlimit all{highest_, highest_};
    EXPECT_EQ(::prlimit(child, RLIMIT_CORE, &all, nullptr), 0);
    EXPECT_EQ(::kill(child, SIGABRT), 0);
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status)) << status;
    return status;
  }

  std::string dir_ = (fs::temp_directory_path() / "mesh-core-run-XXXXXX").string();
  rlim_t highest_ = 0;
  std::string limit_;
};

TEST_F(CoreDumpRun, OnlyWhereItIsAllowed) {
  EXPECT_FALSE(WCOREDUMP(status_of_abort({})));
  EXPECT_EQ(limit_, "0");
  const int allowed = status_of_abort({"--allow-core"});
  EXPECT_NE(limit_, "0");
  if (!WCOREDUMP(allowed)) GTEST_SKIP() << "this system makes no cores: half of it was shown";
}

}  // namespace
}  // namespace mesh
