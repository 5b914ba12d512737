// SPDX-License-Identifier: Apache-2.0
// A store as a command uses it: what it has, and transactions on it. Blocking, one thread.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "agent/store/etcd_engine.h"

namespace mesh::store {

class StoreClient {
 public:
  using Entries = std::map<std::string, KeyValue, std::less<>>;

  // Reads the keys that begin with `under` (of those below options.prefix). Fails when something
  // went wrong and no member has given them within 10 s; without a failure it waits for a minute.
  // One that is to write needs all keys.
  static Result<std::unique_ptr<StoreClient>> open(EtcdOptions options, std::string under);
  ~StoreClient();
  StoreClient(const StoreClient&) = delete;
  StoreClient& operator=(const StoreClient&) = delete;

  // As they were at revision().
  [[nodiscard]] const Entries& entries() const { return entries_; }
  [[nodiscard]] const KeyValue* find(std::string_view key) const;  // null: none
  [[nodiscard]] Revision revision() const { return engine_.counters().revision; }

  // A write that fails may have happened or not.
  Result<Commit> commit(Transaction transaction);
  // After a transaction whose conditions did not hold: waits for what has changed since.
  void follow();

 private:
  StoreClient(EtcdOptions options, std::string under);
  // Runs what there is to do until `done`; false: it was not in time.
  bool run_until(const std::function<bool()>& done, std::chrono::milliseconds limit);

  std::string under_;
  boost::asio::io_context io_{1};
  EtcdEngine engine_;
  Entries entries_;
  EngineState state_;
  bool loaded_ = false;
};

}  // namespace mesh::store
