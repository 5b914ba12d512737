// SPDX-License-Identifier: Apache-2.0
// Runs the checks of this node's instances on one thread of its own and keeps the table.
#pragma once

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "agent/health/probe.h"
#include "agent/health/table.h"

namespace mesh::health {

struct Task {
  std::string instance;      // unique in the catalog
  std::uint64_t netns = 0;   // SO_NETNS_COOKIE of the workload's namespace
  std::vector<Address> own;  // the workload's addresses
  catalog::HealthCheck check;
  MakeSocket make_socket;  // holds the namespace; dropped with the task
  // Why there is nothing to run it against; empty: there is. It is critical then.
  std::string absent = {};
  // What the instance was under an earlier agent of this node: a check that is new starts from it.
  std::optional<CheckStatus> carried = std::nullopt;
};

struct Counters {
  std::atomic<std::uint64_t> passing{0}, warning{0}, critical{0};  // results of probes
  std::atomic<std::uint64_t> changes{0};                           // of a check's status
  std::atomic<std::uint64_t> over_limit{0};  // checks that are not run: there are too many
};

class Runner {
 public:
  static constexpr std::size_t kMaxChecks = 20'000;
  static constexpr std::size_t kMaxProbes = 256;  // at the same time; the others wait

  // `on_change` is called on the runner's thread when the table has changed. `now` is for tests: it
  // is what time a status began and how long it has lasted, not when probes begin.
  Runner(Table& table, std::function<void()> on_change,
         std::function<Clock::time_point()> now = Clock::now);
  ~Runner();
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  // These are the checks from now on. One that was there before in the same namespace, and is the
  // same, goes on; the sockets of those that are not there any more are closed when this returns.
  void set(std::vector<Task> tasks);
  // What a TTL check of this node has to say (Consul's agent/check/pass, warn and fail).
  Status heard(const std::string& check, CheckStatus status, std::string note);
  [[nodiscard]] std::vector<CheckRow> rows() const;
  [[nodiscard]] const Counters& counters() const { return counters_; }

 private:
  struct Entry;
  using Key = std::pair<std::string, std::string>;  // instance, check

  void run();
  void apply(std::vector<Task>& tasks);
  void schedule(const std::shared_ptr<Entry>& entry, Clock::duration after);
  void due(const std::shared_ptr<Entry>& entry);
  void start_waiting();
  void probe(const std::shared_ptr<Entry>& entry);
  void on_outcome(const std::shared_ptr<Entry>& entry, Outcome outcome);
  void publish();
  void watch_withdrawals();
  void in_thread(const std::function<void()>& body) const;

  Table& table_;
  const std::function<void()> on_change_;
  const std::function<Clock::time_point()> now_;
  Counters counters_;
  mutable boost::asio::io_context io_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::map<Key, std::shared_ptr<Entry>> entries_;
  std::set<std::string, std::less<>> over_limit_;  // instances with checks that are not run
  std::set<std::string, std::less<>> withdrawn_;
  boost::asio::steady_timer withdrawals_{io_};
  std::deque<std::weak_ptr<Entry>> waiting_;
  std::size_t probes_ = 0;
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace mesh::health
