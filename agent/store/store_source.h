// SPDX-License-Identifier: Apache-2.0
// A store as the source of the catalog. Reads, checks and assembles on a thread of its own; the
// control thread sees finished snapshots. README.md has the whole behaviour.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/catalog/assemble.h"
#include "agent/catalog/source.h"
#include "agent/store/content.h"
#include "agent/store/etcd_engine.h"
#include "agent/store/registrar.h"

namespace mesh::store {

struct StoreOptions {
  EtcdOptions etcd;
  catalog::OwnNode own;  // vip_cidr6 must be there
  // This node's own; unset: what the store is reached from, unless that is loopback.
  Address node_address;
  std::chrono::seconds lease_ttl{15};
  std::map<std::string, Address> vip_wishes;
  // Changes that come closer together are one snapshot.
  std::chrono::milliseconds pace{10};
  // Nothing is applied before set_local() was called once: a restart would lose, for a moment, the
  // services of this node.
  bool expect_local = false;
};

struct StoreReport {
  std::string engine;
  EngineState state;
  std::chrono::steady_clock::time_point since;  // of state.connected
  std::int64_t revision = 0;
  LeaseId lease = 0;
  std::string registration_problem;
  std::size_t foreign_local = 0;
  ContentStats content;
  std::vector<Refusal> refusals;  // the first 50
};

struct StoreCounters {
  std::uint64_t events, snapshots, sessions, errors, compactions, restores, logins, too_large;
  std::uint64_t writes, conflicts, write_failures, leases_lost;
  std::uint64_t published, merged;  // catalogs given to the control thread, and those passed over
  std::int64_t revision;
};

class StoreSource final : public catalog::CatalogSource {
 public:
  // Handlers are called on `control`.
  StoreSource(boost::asio::io_context& control, StoreOptions options);
  ~StoreSource() override;
  StoreSource(const StoreSource&) = delete;
  StoreSource& operator=(const StoreSource&) = delete;

  // Only on_catalog is used: a value that is wrong costs its key, and report() has it.
  Status start(Handlers handlers) override;
  // Waits for the thread. Registrations stay until their lease runs out.
  void stop() override;
  // What this node's own files say. Thread of `control`.
  void set_local(std::shared_ptr<const catalog::Catalog> catalog);

  // What this node's checks say of its instances. Thread of `control`.
  void report_health(std::map<std::string, InstanceReport, std::less<>> reports);
  // Called on `control`, before the catalog it belongs to. Before start().
  void on_health(std::function<void(std::shared_ptr<const SharedHealth>)> handler);

  [[nodiscard]] StoreReport report() const;      // any thread
  [[nodiscard]] StoreCounters counters() const;  // any thread

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace mesh::store
