// SPDX-License-Identifier: Apache-2.0
// The listing of references over a made-up /proc: what counts, for how long, and what does not.
#include "agent/workload/references.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace mesh::workload {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
namespace fs = std::filesystem;

class ReferencesTest : public testing::Test {
 protected:
  ReferencesTest() {
    std::string name = (fs::temp_directory_path() / "mesh-proc-XXXXXX").string();
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    proc_ = name;
    fs::create_directory(proc_ / "77");  // the agent
    fs::create_symlink("77", proc_ / "self");
    mounts("");
    link("77/ns", 1);
  }
  ~ReferencesTest() override {
    std::error_code ignored;  // a left-over directory in /tmp is not worth failing for
    fs::remove_all(proc_, ignored);
  }

  void link(const std::string& dir, unsigned inode) {
    fs::create_directories(proc_ / dir);
    fs::remove(proc_ / dir / "net");
    fs::create_symlink("net:[" + std::to_string(inode) + "]", proc_ / dir / "net");
  }
  void process(int pid, unsigned inode, const std::string& comm = "app") {
    auto name = std::to_string(pid);
    link(name + "/ns", inode);
    thread(pid, pid, inode);
    std::ofstream(proc_ / name / "comm") << comm << "\n";
  }
  void thread(int pid, int tid, unsigned inode) {
    link(std::to_string(pid) + "/task/" + std::to_string(tid) + "/ns", inode);
  }
  void kill(int pid) { fs::remove_all(proc_ / std::to_string(pid)); }
  void mounts(const std::string& text) { std::ofstream(proc_ / "77" / "mountinfo") << text; }

  References open() {
    auto references = References::open({.proc_dir = proc_.string()});
    EXPECT_TRUE(references) << references.error().what;
    return std::move(references).value();
  }

  fs::path proc_;
};

TEST_F(ReferencesTest, ListsTheNamespacesOfProcessesButNotTheAgents) {
  process(10, 500);
  process(11, 500);
  process(12, 501);
  fs::create_directory(proc_ / "irq");
  auto references = open();
  ASSERT_TRUE(references.refresh_processes(References::Depth::Tick));
  EXPECT_THAT(references.namespaces(), ElementsAre(500u, 501u));
  EXPECT_EQ(references.processes(), 3u);
  EXPECT_FALSE(references.referred(1));
}

TEST_F(ReferencesTest, AReferenceGoesWithItsProcess) {
  process(10, 500);
  auto references = open();
  ASSERT_TRUE(references.refresh_processes(References::Depth::Tick));
  kill(10);
  ASSERT_TRUE(references.refresh_processes(References::Depth::Tick));
  EXPECT_FALSE(references.referred(500));
}

TEST_F(ReferencesTest, AMoveOfAnOldProcessIsSeenWithinTheRecheckTime) {
  process(10, 500);
  auto references = open();
  for (int tick = 0; tick < 20; ++tick)
    ASSERT_TRUE(references.refresh_processes(References::Depth::Tick));
  process(10, 501);
  for (int tick = 0; tick < 3; ++tick)
    ASSERT_TRUE(references.refresh_processes(References::Depth::Tick));
  EXPECT_THAT(references.namespaces(), ElementsAre(501u));
}

TEST_F(ReferencesTest, AFullListingSeesAMoveAtOnce) {
  process(10, 500);
  auto references = open();
  for (int tick = 0; tick < 20; ++tick)
    ASSERT_TRUE(references.refresh_processes(References::Depth::Tick));
  process(10, 501);
  ASSERT_TRUE(references.refresh_processes(References::Depth::Full));
  EXPECT_THAT(references.namespaces(), ElementsAre(501u));
}

TEST_F(ReferencesTest, AThreadInANamespaceOfItsOwnCounts) {
  process(10, 500);
  thread(10, 14, 502);
  auto references = open();
  for (int tick = 0; tick < 10; ++tick)
    ASSERT_TRUE(references.refresh_processes(References::Depth::Tick));
  EXPECT_THAT(references.namespaces(), ElementsAre(500u, 502u));
  thread(10, 14, 500);
  ASSERT_TRUE(references.refresh_processes(References::Depth::Full));
  EXPECT_THAT(references.namespaces(), ElementsAre(500u));
}

TEST_F(ReferencesTest, ThreadsOfADeadLeaderCount) {
  process(10, 500);
  thread(10, 14, 500);
  fs::remove(proc_ / "10" / "ns" / "net");
  fs::remove(proc_ / "10" / "task" / "10" / "ns" / "net");
  auto references = open();
  ASSERT_TRUE(references.refresh_processes(References::Depth::Tick));
  EXPECT_TRUE(references.referred(500));
  EXPECT_EQ(references.unreadable(), 0u);
}

TEST_F(ReferencesTest, MountsCountAndNameTheNamespace) {
  process(10, 500, "ng\x1bnx");
  auto references = open();
  mounts("40 30 0:4 net:[600] /run/netns/blue rw - nsfs nsfs rw\n");
  auto changed = references.refresh_mounts();
  ASSERT_TRUE(changed);
  EXPECT_TRUE(*changed);
  ASSERT_TRUE(references.refresh_processes(References::Depth::Tick));
  EXPECT_THAT(references.namespaces(), ElementsAre(500u, 600u));
  EXPECT_EQ(references.hint(600), "blue");
  EXPECT_EQ(references.hint(500), "ng?nx[10]");
  EXPECT_EQ(references.hint(999), "");
}

TEST_F(ReferencesTest, AFileThatIsNotTheNamespaceIsNotOpenedForIt) {
  process(10, 500);
  auto references = open();
  ASSERT_TRUE(references.refresh_processes(References::Depth::Tick));
  auto fd = references.open_namespace(500);
  ASSERT_FALSE(fd);
  EXPECT_EQ(fd.error().code, std::errc::no_such_file_or_directory);
}

TEST_F(ReferencesTest, ALinkOfAnotherFormIsUnreadable) {
  process(10, 500);
  fs::remove(proc_ / "10" / "ns" / "net");
  fs::create_symlink("nothing", proc_ / "10" / "ns" / "net");
  auto references = open();
  ASSERT_TRUE(references.refresh_processes(References::Depth::Tick));
  EXPECT_THAT(references.namespaces(), IsEmpty());
  EXPECT_EQ(references.unreadable(), 1u);
}

TEST_F(ReferencesTest, SaysWhatIsMissing) {
  auto references = References::open({.proc_dir = (proc_ / "none").string()});
  ASSERT_FALSE(references);
  EXPECT_THAT(references.error().what, testing::HasSubstr("none"));
}

}  // namespace
}  // namespace mesh::workload
