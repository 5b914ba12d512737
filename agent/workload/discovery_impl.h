// SPDX-License-Identifier: Apache-2.0
// The state of discovery. Private to discovery*.cpp.
#pragma once

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "agent/workload/claims.h"
#include "agent/workload/discovery.h"
#include "agent/workload/references.h"

namespace mesh::workload {

using Clock = std::chrono::steady_clock;

// A watched namespace. Its socket keeps it alive, so while it is here its inode number cannot
// come to mean another one.
struct Namespace {
  explicit Namespace(boost::asio::io_context& io) : socket(io) {}

  boost::asio::posix::stream_descriptor socket;
  std::uint64_t cookie = 0;
  ino_t inode = 0;
  std::vector<Address> held;  // inside the CIDRs, sorted; who owns them is for Claims
  bool has_ipv4_loopback = false;
  bool has_ipv6_loopback = false;
  bool over_limit = false;  // max_workloads keeps it out
  bool addresses_over_limit = false;
  bool list_wanted = false;     // waits in `deferred_`
  Clock::time_point list_at{};  // not before
  unsigned misses = 0;          // full listings in a row that found no reference
  std::optional<Workload> published;
};

class Discovery::Impl : public std::enable_shared_from_this<Discovery::Impl> {
 public:
  Impl(boost::asio::io_context& io, Options options, Callbacks callbacks);

  Status start();
  void stop();
  Result<UniqueFd> open_netns(std::uint64_t cookie) const;
  std::vector<Workload> workloads() const;
  const std::vector<Address>& host_addresses() const { return host_addresses_; }
  std::uint64_t host_cookie() const { return host_cookie_; }
  Counters counters() const;

 private:
  using NamespacePtr = std::unique_ptr<Namespace>;
  struct PendingConflict {
    Address address;
    std::uint64_t holder = 0;
    std::uint64_t scan = 0;  // counters_.scans_total when it arose
  };

  // discovery.cpp: timers, listings, sockets.
  Status start_host();
  void arm_tick();
  void arm_mounts();
  void kick(Clock::duration delay);
  void on_tick();
  void on_kick();
  void scan(bool processes, std::size_t max_probes);
  bool drop_dead();  // false when the listing failed
  void probe_new(std::size_t max_probes);
  Result<NamespacePtr> probe(ino_t inode);
  Result<NamespacePtr> adopt(UniqueFd socket, std::uint64_t cookie, ino_t inode);
  void watch(Namespace& ns);
  void on_readable(std::uint64_t cookie);
  void want_list(Namespace& ns);
  void list(Namespace& ns);
  void list_deferred();
  void error_seen(const Error& error, std::string_view what);
  Namespace* find(std::uint64_t cookie);

  // discovery_claims.cpp: who owns what, and telling.
  bool take(Namespace& ns, const std::vector<Address>& addresses);
  void apply(Namespace& ns);
  void claim(std::uint64_t holder, const std::vector<Address>& wanted);
  void publish(std::uint64_t holder);
  void publish_host();
  void drop(std::uint64_t cookie);
  void settle_over_limit();
  void report_conflicts();
  std::string describe(std::uint64_t cookie) const;

  boost::asio::io_context& io_;
  Options options_;
  Callbacks callbacks_;
  Counters counters_;
  std::optional<References> references_;
  boost::asio::steady_timer tick_timer_;
  boost::asio::steady_timer kick_timer_;
  boost::asio::posix::stream_descriptor mounts_;  // only wakes; References reads its own
  Clock::time_point kick_at_ = Clock::time_point::max();
  Clock::time_point mounts_at_{};  // not before
  bool mounts_changed_ = false;
  bool processes_wanted_ = false;  // the next kick lists the processes too
  bool started_ = false;
  bool stopped_ = false;  // a handler may be queued already when its timer is cancelled
  bool unwatched_warned_ = false;
  bool over_limit_warned_ = false;
  bool error_warned_ = false;

  NamespacePtr host_;
  std::uint64_t host_cookie_ = 0;
  ino_t host_inode_ = 0;
  bool host_told_ = false;
  std::vector<Address> host_addresses_;

  std::map<std::uint64_t, NamespacePtr> namespaces_;  // by cookie
  std::unordered_map<ino_t, std::uint64_t> by_inode_;
  std::unordered_map<ino_t, Clock::time_point> retry_at_;  // of failed probes
  std::vector<std::uint64_t> deferred_;
  Claims claims_;
  std::vector<PendingConflict> pending_conflicts_;
};

}  // namespace mesh::workload
