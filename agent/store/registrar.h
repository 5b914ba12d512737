// SPDX-License-Identifier: Apache-2.0
// Keeps this node and its own services in the store: under a lease that it renews, and again when
// the lease was lost. Gives services their VIPs, first writer wins. Writes nothing else.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>

#include "agent/store/content.h"
#include "agent/store/engine.h"

namespace mesh::store {

struct RegistrarCounters {
  std::atomic<std::uint64_t> writes{0};     // transactions that were committed
  std::atomic<std::uint64_t> conflicts{0};  // transactions that somebody else was quicker than
  std::atomic<std::uint64_t> failures{0};   // that failed
  std::atomic<std::uint64_t> leases_lost{0};
};

class Registrar {
 public:
  struct Options {
    std::string node_name;
    std::chrono::seconds lease_ttl{15};
    // VIPs that an earlier agent of this node gave: kept where nobody has them.
    std::map<std::string, Address> wishes;
  };

  // `engine` and `content` are used on the thread that runs `io`, and outlive stop() and what runs
  // of it.
  Registrar(boost::asio::io_context& io, Options options, Engine& engine, Content& content);

  void start();
  void stop();
  void set_connected(bool connected);
  // The content, or what is wanted, has changed.
  void wake();

  // Why this node is not registered; empty: it is, or there is nothing to register.
  [[nodiscard]] const std::string& problem() const { return problem_; }
  [[nodiscard]] LeaseId lease() const { return lease_; }
  [[nodiscard]] const RegistrarCounters& counters() const { return counters_; }

 private:
  boost::asio::awaitable<void> run();
  boost::asio::awaitable<void> assign_vips();
  boost::asio::awaitable<Status> renew_lease();
  boost::asio::awaitable<Status> write_own();
  // Into the transaction, up to so many puts in all: what the store does not have as wanted.
  void put_wanted(const std::map<std::string, std::string>& wanted, std::size_t most,
                  Transaction& transaction) const;
  // Waits until the content has seen this revision, a second at most.
  boost::asio::awaitable<void> until_seen(Revision revision);
  boost::asio::awaitable<void> sleep(std::chrono::milliseconds time);
  [[nodiscard]] bool active() const { return connected_ && !stopped_ && content_.loaded(); }

  boost::asio::io_context& io_;
  Options options_;
  Engine& engine_;
  Content& content_;
  boost::asio::steady_timer wake_;
  RegistrarCounters counters_;
  std::mt19937_64 random_;
  bool connected_ = false;
  bool stopped_ = false;
  bool pending_ = false;  // wake() was called while nobody waited for it
  bool assigning_ = false;
  LeaseId lease_ = 0;
  std::chrono::steady_clock::time_point renewed_;
  std::string problem_;
};

}  // namespace mesh::store
