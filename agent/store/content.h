// SPDX-License-Identifier: Apache-2.0
// Keys and values of a store to catalogs. Every value is checked when it comes; what is wrong with
// it costs that key, never the others. README.md states the rules. No I/O; one thread.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "agent/catalog/assemble.h"
#include "agent/catalog/model.h"
#include "agent/store/health_keys.h"
#include "agent/store/kv.h"

namespace mesh::store {

// What a key says about itself.
struct KeyName {
  enum class Kind { Instance, Node, Health, Vip, VipOwner, Config, ConfigChange, Unknown };
  Kind kind = Kind::Unknown;
  std::string_view name;  // of the service, node or address; of Config: kind/name
  std::string_view id;    // of the instance; of Health: service/instance
};
KeyName parse_key(std::string_view key);

std::string instance_key(std::string_view service, std::string_view id);
std::string node_key(std::string_view node);
std::string vip_key(std::string_view service);
std::string vip_owner_key(const Address& vip);
std::string config_key(std::string_view kind_and_name);
// Changed with each entry that a command writes or deletes, so that no two of them are checked
// beside each other. It and all entries, but no VIP, are from kConfigBegin to before kConfigEnd.
inline constexpr std::string_view kConfigChangeKey = "config/change";
inline constexpr std::string_view kConfigBegin = "config/";
inline constexpr std::string_view kConfigEnd = "config/vip";

// What an engine is to read before the rest: rules, and whose addresses are the mesh's.
inline const std::vector<std::string> kReadFirst{"config/", "nodes/"};

// Values as this agent writes them.
std::string instance_value(const catalog::Service& service, const catalog::Instance& instance);
std::string node_value(const catalog::Node& node);
std::string vip_value(const Address& vip);

// A key of this agent's as the store has it.
struct OwnKey {
  Revision modified = 0;
  LeaseId lease = 0;
  std::string value;
};

struct Refusal {
  std::string key;
  std::string reason;
  bool operator==(const Refusal&) const = default;
};

struct ContentStats {
  std::size_t keys = 0;
  std::size_t bytes = 0;           // of values
  std::size_t refused = 0;         // keys left out, for whatever reason
  std::size_t over_limit = 0;      // of these: beyond a limit, and not even remembered
  std::size_t config_entries = 0;  // kept as text for who understands them
  std::size_t waiting = 0;         // services that have no VIP yet
  std::size_t health = 0;          // of the keys: what other nodes say of their instances
  std::size_t health_unknown = 0;  // of these: of instances that the catalog does not have
  std::size_t others_warning = 0;  // instances of other nodes
  std::size_t others_critical = 0;
};

class Content {
 public:
  struct Options {
    catalog::OwnNode own;
    Cidr vip_cidr6;
    std::size_t max_keys = kMaxKeys;
  };

  explicit Content(Options options);
  ~Content();
  Content(const Content&) = delete;
  Content& operator=(const Content&) = delete;

  void load(Snapshot snapshot);
  void apply(Batch batch);
  // What this node's own files say: goes before what the store has under the same keys, and into
  // the store under them. Instances outside of this node's ranges are left to their own agents and
  // counted.
  void set_local(const catalog::Catalog& catalog);
  void set_own_node(const catalog::Node& node);

  // A catalog of what there is now; the last one again if nothing changed. Null before load().
  std::shared_ptr<const catalog::Catalog> build();
  [[nodiscard]] bool loaded() const { return loaded_; }

  // Services without a VIP, with instances or entries, sorted, at most `most`.
  [[nodiscard]] std::vector<std::string> without_vip(std::size_t most) const;
  // An address for a service that nobody has as far as is known: `wish` if it is free.
  [[nodiscard]] Address propose_vip(const std::string& service, std::optional<Address> wish,
                                    const std::set<Address>& taken) const;

  // What is known of health by the catalog of the last build(); null before load().
  std::shared_ptr<const SharedHealth> health();
  // What this node's checks say.
  void report_health(std::map<std::string, InstanceReport, std::less<>> reports) {
    health_.report(std::move(reports));
  }

  // Keys that this agent writes: its node, and its own instances. `wanted` has their values, and
  // `wanted_health` those of the keys that tell these instances' health.
  [[nodiscard]] const std::map<std::string, OwnKey>& own_keys() const { return own_keys_; }
  [[nodiscard]] const std::map<std::string, std::string>& wanted() const { return wanted_; }
  [[nodiscard]] const std::map<std::string, std::string>& wanted_health() const {
    return health_.wanted();
  }
  // The node that is registered under this node's name; null: none.
  [[nodiscard]] const catalog::Node* registered_self() const;
  [[nodiscard]] std::size_t foreign_local() const { return foreign_local_; }

  [[nodiscard]] ContentStats stats() const;
  // Sorted by key, at most `most`.
  [[nodiscard]] std::vector<Refusal> refusals(std::size_t most) const;
  // kind/name -> text of config entries, as they are; build() reads them.
  [[nodiscard]] const std::map<std::string, std::string>& config_entries() const {
    return config_entries_;
  }

 private:
  static constexpr Revision kLast = std::numeric_limits<Revision>::max();

  // There may be 100,000 of them: what the key says already is not in it.
  struct Definition {
    Address address;
    std::uint16_t port = 0;
    catalog::Weights weights;
    catalog::Protocol protocol = catalog::Protocol::Tcp;
    catalog::ServiceFlags flags;
    catalog::SharedDetails details;

    [[nodiscard]] Endpoint endpoint() const { return {address, port}; }
    [[nodiscard]] catalog::Instance instance(std::string id) const {
      return {std::move(id), address, port, weights, details};
    }
    bool operator==(const Definition&) const = default;
  };
  static Definition definition_of(catalog::Protocol protocol, catalog::ServiceFlags flags,
                                  const catalog::Instance& instance) {
    return {instance.address, instance.port, instance.weights, protocol, flags, instance.details};
  }
  using DefinitionPtr = std::unique_ptr<const Definition>;

  struct ServiceState;
  struct Record {
    ServiceState* service = nullptr;
    const std::string* id = nullptr;
    DefinitionPtr stored;
    DefinitionPtr local;
    std::unique_ptr<const std::string> refused;  // null: it is not
    Revision created = kLast;                    // who was first wins
    Revision modified = 0;
    std::uint32_t bytes = 0;    // of the stored value
    bool tells_health = false;  // it has checks, which this node runs

    [[nodiscard]] const Definition* definition() const {
      return local ? local.get() : stored.get();
    }
    void refuse(std::string reason) {
      refused = std::make_unique<const std::string>(std::move(reason));
    }
  };
  struct ServiceState {
    const std::string* name = nullptr;
    std::map<std::string, Record, std::less<>> records;
    bool named = false;  // an entry is for it: it is a service without instances as well
    bool waits_for_vip = false;
  };
  struct NodeRecord {
    std::shared_ptr<const catalog::NodeDefinition> definition;
    Revision created = kLast;
    Revision modified = 0;
    bool gone = false;
    std::string refused;
  };
  struct VipRecord {
    Address vip;
    Revision created = 0;
    Revision modified = 0;
  };
  struct EndpointHash {
    std::size_t operator()(const Endpoint& e) const noexcept {
      return std::hash<Address>{}(e.address) * 31 + e.port;
    }
  };

  void put(KeyValue kv);
  void erase(const std::string& key);
  void note(const std::string& key, std::string reason);
  bool known(const std::string& key, const KeyName& name) const;
  Result<DefinitionPtr> read_instance(const KeyName& name, const KeyValue& kv) const;
  void share_details(const KeyName& name, catalog::SharedDetails& details) const;
  void put_instance(const KeyName& name, const KeyValue& kv);
  void put_node(const KeyName& name, const KeyValue& kv);
  void put_vip(const KeyName& name, const KeyValue& kv);
  void put_config(const std::string& entry, KeyValue kv);
  void erase_config(const std::string& entry);
  void leave_out_config(const std::string& entry);
  ServiceState& state_of(std::string_view service);
  Record& record_of(std::string_view service, std::string_view id);
  void change_definition(Record& record, DefinitionPtr& slot, DefinitionPtr definition);
  void drop_if_empty(Record& record);
  void want_health(Record& record);
  void claim(Record& record);
  void unclaim(Record& record);
  void touch(ServiceState& service);
  void touch_name(std::string_view service);
  [[nodiscard]] const VipRecord* vip_of(const std::string& service) const;
  [[nodiscard]] const std::string* winner_of_case(const std::string& name) const;
  [[nodiscard]] static Revision first_of(const ServiceState& service);
  void build_entries();
  void name_services();
  [[nodiscard]] std::map<std::string, std::string> refused_names() const;
  [[nodiscard]] std::optional<catalog::Protocol> instances_say(std::string_view service) const;
  void apply_entries(catalog::Service& service) const;
  std::shared_ptr<const catalog::Catalog> build_catalog();
  catalog::ServicePtr build_service(ServiceState& service);
  std::shared_ptr<const catalog::Catalog::Nodes> build_nodes();
  [[nodiscard]] bool is_own(const KeyName& name) const;
  void want(std::string key, std::string value);

  Options options_;
  HealthKeys health_{options_.own.name};
  bool loaded_ = false;
  std::size_t keys_ = 0;
  std::size_t bytes_ = 0;
  std::size_t instances_ = 0;
  std::size_t over_limit_ = 0;
  std::size_t foreign_local_ = 0;

  std::map<std::string, ServiceState, std::less<>> services_;
  std::map<std::string, std::set<std::string>> by_lower_;  // names that differ only in case
  std::unordered_multimap<Endpoint, Record*, EndpointHash> claims_;
  std::map<std::string, NodeRecord, std::less<>> nodes_;
  std::optional<catalog::Node> own_node_;
  std::map<std::string, VipRecord, std::less<>> vips_;
  std::map<Address, std::set<std::pair<Revision, std::string>>> by_vip_;
  std::set<Address> vip_owners_;
  std::map<std::string, std::string> config_entries_;
  // Beyond the limit, and not without effect for that.
  std::set<std::string> unread_entries_;
  bool entries_complete_ = true;                // false: there are more that are not in it
  std::map<std::string, std::string> unnamed_;  // kind/name, no service for lack of room -> why
  std::map<std::string, std::string> refused_;  // by the value alone
  std::map<std::string, OwnKey> own_keys_;
  std::map<std::string, std::string> wanted_;

  std::set<std::string, std::less<>> touched_;  // services to build again
  bool nodes_touched_ = true;
  bool entries_touched_ = true;
  std::shared_ptr<const config::Entries> local_entries_ = std::make_shared<const config::Entries>();
  std::shared_ptr<const config::Entries> entries_ = std::make_shared<const config::Entries>();
  std::shared_ptr<const catalog::Catalog> catalog_;
};

}  // namespace mesh::store
