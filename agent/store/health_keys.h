// SPDX-License-Identifier: Apache-2.0
// Keys of the store that tell the health of instances: health/<node>/<service>/<instance>, written
// by that node's agent alone, under its lease. What others say is held beside the catalog, which
// knows where an instance is: only its own node's word counts. README.md states the rules. No I/O,
// no clock; one thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/catalog/model.h"
#include "agent/store/kv.h"

namespace mesh::store {

using HealthByInstance = std::map<std::string, catalog::CheckStatus, std::less<>>;

// What the agent is to know of instances' health beside its own checks.
struct SharedHealth {
  // Instances of other nodes that are not passing: by their agents, or because the node is gone.
  HealthByInstance others;
  // Of this node, what an agent before this one said last: its lease has not run out.
  HealthByInstance carried;
};

struct InstanceReport {
  catalog::CheckStatus status = catalog::CheckStatus::Passing;
  std::string output;  // for people
};

class HealthKeys {
 public:
  static constexpr std::size_t kMaxKeys = catalog::kMaxInstances;
  static constexpr std::size_t kMaxBytes = 2048;  // of a value
  static constexpr std::size_t kMaxOutput = 256;  // bytes of it that are written and kept

  struct Refusal {
    std::string key;
    std::string reason;
  };

  explicit HealthKeys(std::string own_node) : own_node_(std::move(own_node)) {}

  // What the store has: `id` is <service>/<instance>, as KeyName has it.
  void put(std::string_view node, std::string_view id, const KeyValue& kv);
  void erase(std::string_view node, std::string_view id);
  // The first load is over: what an earlier agent said is known.
  void first_load_done();
  void for_each_key(const std::function<void(std::string key)>& body) const;

  // What this node has to say: an instance of it with checks came, is another one, or went.
  void want(const std::string& service, const std::string& id, const catalog::Instance& instance);
  void unwant(const std::string& service, const std::string& id);
  // By instance. Who is not in it is what an earlier agent said, else what its checks begin as.
  void report(std::map<std::string, InstanceReport, std::less<>> reports);
  // Key -> value: what the store should have of this node.
  [[nodiscard]] const std::map<std::string, std::string>& wanted() const { return wanted_; }

  void touch(const std::string& service) { touched_.insert(service); }
  void touch_all() { all_touched_ = true; }
  // What is known by this catalog; the same pointer again if nothing changed.
  std::shared_ptr<const SharedHealth> build(const catalog::Catalog& catalog);

  [[nodiscard]] const SharedHealth* known() const { return shared_.get(); }  // of the last build()
  [[nodiscard]] std::size_t size() const { return count_; }
  [[nodiscard]] std::size_t over_limit() const { return over_limit_; }
  // Keys of instances that the catalog does not have (yet, or any more).
  [[nodiscard]] std::size_t unknown() const;
  // Keys that do not count, and why: at most `most`.
  [[nodiscard]] std::size_t refused() const;
  void refusals(std::size_t most, const std::function<void(Refusal)>& body) const;

 private:
  enum class Use { Unknown, Counts, OtherNode };
  struct Record {
    catalog::CheckStatus status = catalog::CheckStatus::Passing;
    std::string refused;  // why the value is none; empty: it is one
    Use use = Use::Unknown;
  };
  // By <node>/<instance>.
  using Records = std::map<std::string, Record, std::less<>>;
  struct Own {
    catalog::CheckStatus initial;
    std::string key;
  };

  void build_service(const std::string& name, const catalog::Catalog& catalog);
  void write(const std::string& id, const Own& own);

  const std::string own_node_;
  bool first_load_ = true;
  std::map<std::string, Records, std::less<>> records_;  // by service
  std::size_t count_ = 0;
  std::size_t over_limit_ = 0;
  std::set<std::string> touched_;
  bool all_touched_ = false;
  std::map<std::string, HealthByInstance, std::less<>> unhealthy_;  // by service: others' instances
  bool changed_ = true;
  std::shared_ptr<const SharedHealth> shared_;
  HealthByInstance carried_;

  std::map<std::pair<std::string, std::string>, Own> own_;  // by instance and service
  std::map<std::string, InstanceReport, std::less<>> reports_;
  std::map<std::string, std::string> wanted_;
};

std::string health_key(std::string_view node, std::string_view service, std::string_view id);

}  // namespace mesh::store
