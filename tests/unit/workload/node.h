// SPDX-License-Identifier: Apache-2.0
// Real namespaces, processes and addresses for the discovery tests, removed whatever happens, and
// a discovery that records what it tells.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "agent/workload/discovery.h"

namespace mesh::workload::testing_node {

// What discovery promises: within a second. An emulated guest (MESH_VM) runs some twenty times
// slower than its host, so there the limit only tells late from never.
inline std::chrono::milliseconds promised() {
  return std::getenv("MESH_VM") != nullptr ? std::chrono::seconds(10) : std::chrono::seconds(1);
}

using Clock = std::chrono::steady_clock;
using Arguments = std::vector<std::string>;

// Runs a program and waits; records a test failure when it fails and `may_fail` is not set.
bool run(const Arguments& arguments, bool may_fail = false);

// A program in the background; killed and reaped at the end.
class Process {
 public:
  explicit Process(const Arguments& arguments);
  Process(Process&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
  Process& operator=(Process&&) = delete;
  ~Process() { stop(); }
  void stop();
  [[nodiscard]] pid_t pid() const { return pid_; }
  // Runs `ip ...` inside the namespace of the process.
  void ip(Arguments arguments) const;

 private:
  pid_t pid_ = -1;
};

// Waits until a process has left the network namespace of the test.
void await_unshared(const Process& process);

// A process in a network namespace of its own.
Process unshared();

// `ip netns add`, with a name of this test process.
class NamedNetns {
 public:
  NamedNetns();
  explicit NamedNetns(std::string name);
  NamedNetns(NamedNetns&& other) noexcept : name_(std::exchange(other.name_, {})) {}
  NamedNetns& operator=(NamedNetns&&) = delete;
  ~NamedNetns() { remove(); }
  void remove();
  void ip(Arguments arguments) const;          // `ip -n NAME ...`
  void add(const std::string& address) const;  // on lo
  void del(const std::string& address) const;
  [[nodiscard]] const std::string& name() const { return name_; }

 private:
  std::string name_;
};

struct Event {
  enum class Kind { Found, Changed, Gone, Host } kind;
  std::uint64_t cookie = 0;
  Workload workload;               // Found, Changed
  std::vector<Address> addresses;  // Host
  Clock::time_point at;
};

class NodeTest : public testing::Test {
 protected:
  void SetUp() override;  // skips, or fails with MESH_REQUIRE_ROOT=1, without root

  // Addresses that no other test process uses at the same time: 100.x.y.n and fd6d:x::n.
  [[nodiscard]] std::string v4(unsigned n) const;
  [[nodiscard]] std::string v6(unsigned n) const;
  static Address at(const std::string& text) { return Address::parse(text).value(); }

  void start();  // discovery, with `options`
  // Runs until `done`, 1 s at most; how long it took. A failure names `what`.
  std::chrono::milliseconds await(const char* what, const std::function<bool()>& done,
                                  std::chrono::milliseconds limit = promised());
  void run_for(std::chrono::milliseconds time);
  // The last word about an address: the workload that has it, or null.
  [[nodiscard]] const Workload* holder(const std::string& address) const;
  [[nodiscard]] std::size_t count(Event::Kind kind, std::uint64_t cookie = 0) const;

  boost::asio::io_context io_;
  Options options_;
  std::vector<Event> events_;
  std::vector<Workload> known_;  // what the callbacks add up to
  std::unique_ptr<Discovery> discovery_;
};

}  // namespace mesh::workload::testing_node
