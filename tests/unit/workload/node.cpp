// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/workload/node.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace mesh::workload::testing_node {
namespace {

pid_t spawn(const Arguments& arguments, bool quiet) {
  std::vector<char*> argv;
  for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (quiet) posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  pid_t pid = -1;
  int error = posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  EXPECT_EQ(error, 0) << arguments[0] << ": " << std::strerror(error);
  return error == 0 ? pid : -1;
}

std::string fresh_name() {
  static std::atomic<unsigned> next{0};
  return fmt::format("mw{}-{}", ::getpid(), next++);
}

ino_t inode_of(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 ? st.st_ino : 0;
}

Arguments prefixed(Arguments prefix, const Arguments& arguments) {
  prefix.insert(prefix.end(), arguments.begin(), arguments.end());
  return prefix;
}

}  // namespace

bool run(const Arguments& arguments, bool may_fail) {
  pid_t pid = spawn(arguments, may_fail);
  int status = -1;
  if (pid < 0 || ::waitpid(pid, &status, 0) != pid) return false;
  std::string line;
  for (const auto& argument : arguments) line += argument + " ";
  if (!may_fail) {
    EXPECT_EQ(status, 0) << line;
  }
  return status == 0;
}

Process::Process(const Arguments& arguments) : pid_(spawn(arguments, false)) {}

void Process::stop() {
  if (pid_ <= 0) return;
  (void)::kill(pid_, SIGKILL);  // it may be dead already
  (void)::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void Process::ip(Arguments arguments) const {
  run(prefixed({"nsenter", fmt::format("--net=/proc/{}/ns/net", pid_), "ip"}, arguments));
}

void await_unshared(const Process& process) {
  auto own = inode_of("/proc/self/ns/net");
  auto path = fmt::format("/proc/{}/ns/net", process.pid());
  for (int i = 0; i < 5000 && inode_of(path) == own; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_NE(inode_of(path), own);
}

Process unshared() {
  Process process({"unshare", "-n", "sleep", "120"});
  await_unshared(process);
  return process;
}

NamedNetns::NamedNetns() : NamedNetns(fresh_name()) {}
NamedNetns::NamedNetns(std::string name) : name_(std::move(name)) {
  run({"ip", "netns", "add", name_});
}

void NamedNetns::remove() {
  if (!name_.empty()) run({"ip", "netns", "del", std::exchange(name_, {})});
}

void NamedNetns::ip(Arguments arguments) const { run(prefixed({"ip", "-n", name_}, arguments)); }
void NamedNetns::add(const std::string& address) const {
  ip({"addr", "add", address, "dev", "lo"});
}
void NamedNetns::del(const std::string& address) const {
  ip({"addr", "del", address + (address.find(':') == std::string::npos ? "/32" : "/128"), "dev",
      "lo"});
}

void NodeTest::SetUp() {
  if (::geteuid() != 0) {
    const char* required = std::getenv("MESH_REQUIRE_ROOT");
    if (required && std::strcmp(required, "1") == 0) FAIL() << "this test needs root";
    GTEST_SKIP() << "this test needs root";
  }
  options_.node_cidrs = {Cidr::parse(v4(0) + "/22").value(), Cidr::parse(v6(0) + "/64").value()};
}

std::string NodeTest::v4(unsigned n) const {
  auto pid = static_cast<unsigned>(::getpid());
  return fmt::format("100.{}.{}.{}", 64 + pid % 64, pid / 64 % 64 * 4 + n / 256, n % 256);
}

std::string NodeTest::v6(unsigned n) const {
  auto pid = static_cast<unsigned>(::getpid());
  if (n == 0) return fmt::format("fd6d:{:x}:{:x}::", pid >> 16, pid & 0xffff);
  return fmt::format("fd6d:{:x}:{:x}::{:x}", pid >> 16, pid & 0xffff, n);
}

void NodeTest::start() {
  auto forget = [this](std::uint64_t cookie) {
    return std::erase_if(known_, [=](const Workload& one) { return one.cookie == cookie; });
  };
  Callbacks callbacks;
  callbacks.on_found = [=, this](const Workload& workload) {
    EXPECT_EQ(forget(workload.cookie), 0u) << "found twice";
    EXPECT_FALSE(workload.addresses.empty());
    for (const Workload& other : known_)
      for (const Address& address : workload.addresses)
        EXPECT_EQ(std::count(other.addresses.begin(), other.addresses.end(), address), 0)
            << address.to_string() << " given before it was taken";
    known_.push_back(workload);
    events_.push_back({Event::Kind::Found, workload.cookie, workload, {}, Clock::now()});
  };
  callbacks.on_changed = [=, this](const Workload& workload) {
    EXPECT_EQ(forget(workload.cookie), 1u) << "changed before found";
    EXPECT_FALSE(workload.addresses.empty());
    known_.push_back(workload);
    events_.push_back({Event::Kind::Changed, workload.cookie, workload, {}, Clock::now()});
  };
  callbacks.on_gone = [=, this](std::uint64_t cookie) {
    EXPECT_EQ(forget(cookie), 1u) << "gone before found";
    events_.push_back({Event::Kind::Gone, cookie, {}, {}, Clock::now()});
  };
  callbacks.on_host_addresses = [this](const std::vector<Address>& addresses) {
    events_.push_back({Event::Kind::Host, 0, {}, addresses, Clock::now()});
  };
  discovery_ = std::make_unique<Discovery>(io_, options_, std::move(callbacks));
  auto status = discovery_->start();
  ASSERT_TRUE(status) << status.error().what;
}

std::chrono::milliseconds NodeTest::await(const char* what, const std::function<bool()>& done,
                                          std::chrono::milliseconds limit) {
  auto begin = Clock::now();
  auto elapsed = [&] {
    return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin);
  };
  while (!done() && elapsed() < limit) io_.run_one_for(std::chrono::milliseconds(5));
  auto took = elapsed();
  EXPECT_TRUE(done()) << what << " did not happen within " << limit.count() << " ms";
  return took;
}

void NodeTest::run_for(std::chrono::milliseconds time) {
  auto end = Clock::now() + time;
  while (Clock::now() < end) io_.run_one_for(std::chrono::milliseconds(5));
}

const Workload* NodeTest::holder(const std::string& address) const {
  for (const Workload& workload : known_)
    for (const Address& one : workload.addresses)
      if (one == at(address)) return &workload;
  return nullptr;
}

std::size_t NodeTest::count(Event::Kind kind, std::uint64_t cookie) const {
  return static_cast<std::size_t>(
      std::count_if(events_.begin(), events_.end(), [&](const Event& event) {
        return event.kind == kind && (cookie == 0 || event.cookie == cookie);
      }));
}

}  // namespace mesh::workload::testing_node
