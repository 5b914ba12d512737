// SPDX-License-Identifier: Apache-2.0
// The catalog: which services there are, where their instances listen, which node has which
// addresses, and the config entries beside them. A snapshot is immutable, so it may be shared
// between threads; whoever holds one sees one consistent state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/base/address.h"
#include "agent/catalog/health_check.h"
#include "agent/config/entries.h"

namespace mesh::catalog {

inline constexpr std::size_t kMaxServices = 10'000;
inline constexpr std::size_t kMaxInstances = 100'000;
inline constexpr std::size_t kMaxNodes = 5'000;
inline constexpr std::size_t kMaxNodeCidrs = 15'000;  // of all nodes; each is in mesh_cidrs

using config::Protocol;
using config::to_string;

// How the agent treats a service; from the mesh-* keys of its meta.
struct ServiceFlags {
  bool twoleg = false;      // mesh-path = "twoleg": every connection goes through the relay
  bool sockmap = false;     // mesh-acceleration = "sockmap"
  bool permissive = false;  // mesh-inbound = "permissive"
  bool operator==(const ServiceFlags&) const = default;
};

// How much of a service's traffic an instance gets, by its health.
struct Weights {
  std::uint16_t passing = 1;  // never 0
  std::uint16_t warning = 1;
  bool operator==(const Weights&) const = default;
};

struct TaggedAddress {
  std::string address;     // as written
  std::uint16_t port = 0;  // 0: not given
  bool operator==(const TaggedAddress&) const = default;
};

// What an instance mostly lacks, or has in common with the others of its service.
struct InstanceDetails {
  std::vector<std::string> tags = {};
  std::map<std::string, std::string> meta = {};                // as written, mesh-* keys included
  std::map<std::string, TaggedAddress> tagged_addresses = {};  // "lan", "wan", ...
  std::vector<HealthCheck> checks = {};
  bool operator==(const InstanceDetails&) const = default;
};

// Details that copies share: of 100,000 instances, in a store's records, the catalog and its former
// snapshots. None at all take no memory of their own.
class SharedDetails {
 public:
  SharedDetails() = default;
  SharedDetails(InstanceDetails details);  // NOLINT(google-explicit-constructor): is its value

  const InstanceDetails& operator*() const { return details_ ? *details_ : none(); }
  const InstanceDetails* operator->() const { return &**this; }
  // Shares what the other has if it is the same. Whether it is.
  bool share(const SharedDetails& other);
  bool operator==(const SharedDetails& other) const {
    return details_ == other.details_ || **this == *other;
  }

 private:
  static const InstanceDetails& none();
  std::shared_ptr<const InstanceDetails> details_;  // null: none
};

struct Instance {
  std::string id;  // unique in the catalog
  Address address;
  std::uint16_t port = 0;  // host byte order, never 0
  Weights weights = {};
  SharedDetails details = {};

  [[nodiscard]] Endpoint endpoint() const { return {address, port}; }
  bool operator==(const Instance&) const = default;
};

struct Service {
  std::string name;  // 1 to 63 characters
  Protocol protocol = Protocol::Tcp;
  ServiceFlags flags;
  std::vector<Instance> instances;  // by id; none if only config entries name it
  Address vip4;                     // of 240.0.0.0/4
  Address vip6;                     // the VIP prefix and the 32 bits of vip4

  bool operator==(const Service&) const = default;
};

struct Node {
  std::string name;
  Address address;          // of the node itself, not of a pod
  std::vector<Cidr> cidrs;  // sorted, at least one: where its pods have their addresses
  std::map<std::string, std::string> meta;
  // It has not signed off but is not heard of any more (a store's lease ran out): its ranges stay
  // the mesh's, so that nothing goes there in clear, and nobody is reached there.
  bool gone = false;

  bool operator==(const Node&) const = default;
};

using ServicePtr = std::shared_ptr<const Service>;

// Services by name. Looks like a std::map<std::string, Service> to those who read it; snapshots
// share what did not change between them.
class ServiceList {
 public:
  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = std::pair<const std::string&, const Service&>;
    using difference_type = std::ptrdiff_t;
    using reference = value_type;
    struct pointer {
      value_type value;
      const value_type* operator->() const { return &value; }
    };

    Iterator() = default;
    explicit Iterator(std::vector<ServicePtr>::const_iterator at) : at_(at) {}
    reference operator*() const { return {(*at_)->name, **at_}; }
    pointer operator->() const { return {**this}; }
    Iterator& operator++() {
      ++at_;
      return *this;
    }
    Iterator operator++(int) { return Iterator(at_++); }
    bool operator==(const Iterator&) const = default;

   private:
    std::vector<ServicePtr>::const_iterator at_;
  };

  ServiceList() = default;
  // Sorted by name, each name once, none null.
  explicit ServiceList(std::vector<ServicePtr> services) : services_(std::move(services)) {}

  [[nodiscard]] Iterator begin() const { return Iterator(services_.begin()); }
  [[nodiscard]] Iterator end() const { return Iterator(services_.end()); }
  [[nodiscard]] std::size_t size() const { return services_.size(); }
  [[nodiscard]] bool empty() const { return services_.empty(); }
  [[nodiscard]] const std::vector<ServicePtr>& pointers() const { return services_; }
  [[nodiscard]] const Service* find(std::string_view name) const;  // null: none
  bool operator==(const ServiceList& other) const;

 private:
  std::vector<ServicePtr> services_;
};

class Catalog {
 public:
  using Services = std::map<std::string, Service, std::less<>>;
  using Nodes = std::map<std::string, Node, std::less<>>;

  // A service that is new or different; null: it is gone.
  struct ServiceChange {
    std::string name;
    ServicePtr service;
  };

  Catalog() = default;
  // Both are keyed by name; (address, port) is unique among all instances, and no two CIDRs of
  // nodes overlap. Without entries there are none.
  explicit Catalog(Services services, Nodes nodes = {},
                   std::shared_ptr<const config::Entries> entries = nullptr);
  // What differs from an earlier snapshot, under the same rules; each name once. Costs a copy of
  // the indexes, nothing for each service that stays. Null: the entries stay as they are.
  Catalog(const Catalog& before, std::vector<ServiceChange> changes,
          std::shared_ptr<const Nodes> nodes,
          std::shared_ptr<const config::Entries> entries = nullptr);
  Catalog(const Catalog&) = delete;  // the indexes point into what it holds
  Catalog& operator=(const Catalog&) = delete;

  [[nodiscard]] const ServiceList& services() const { return services_; }
  [[nodiscard]] std::size_t instances() const { return by_endpoint_.size(); }
  [[nodiscard]] const Nodes& nodes() const { return *nodes_; }
  // For the next snapshot, if the nodes stay.
  [[nodiscard]] const std::shared_ptr<const Nodes>& shared_nodes() const { return nodes_; }
  // The services have been given what it says of them.
  [[nodiscard]] const config::Entries& entries() const { return *entries_; }
  // The same object for as long as nothing in it changes.
  [[nodiscard]] const std::shared_ptr<const config::Entries>& shared_entries() const {
    return entries_;
  }
  [[nodiscard]] const Service* find(std::string_view name) const;
  // Every service with an instance at the address, by name. Pointers live as long as the catalog.
  [[nodiscard]] std::vector<const Service*> services_at(const Address& address) const;
  [[nodiscard]] const Service* service_at(const Endpoint& endpoint) const;
  // By address and port.
  using EndpointEntry = std::pair<Endpoint, const Service*>;
  [[nodiscard]] std::span<const EndpointEntry> endpoints() const { return by_endpoint_; }
  [[nodiscard]] std::span<const EndpointEntry> endpoints_at(const Address& address) const;
  // The node one of whose CIDRs contains the address, by the catalog alone: it may be this node.
  // The pointer lives as long as the catalog.
  [[nodiscard]] const Node* node_of(const Address& address) const;
  // The service that gives a workload its identity: the first by name with an instance at one of
  // its addresses; null if there is none. The addresses of another node's workload are only known
  // one by one, so each of them is asked for by itself.
  [[nodiscard]] const Service* identity_of(std::span<const Address> addresses) const;
  [[nodiscard]] std::optional<std::string_view> identity_of(const Address& address) const;
  [[nodiscard]] bool operator==(const Catalog& other) const {
    return services_ == other.services_ && *nodes_ == *other.nodes_ && *entries_ == *other.entries_;
  }

 private:
  void index_nodes();

  ServiceList services_;
  std::shared_ptr<const Nodes> nodes_ = std::make_shared<const Nodes>();
  std::shared_ptr<const config::Entries> entries_ = std::make_shared<const config::Entries>();
  std::vector<EndpointEntry> by_endpoint_;             // sorted by endpoint
  std::vector<std::pair<Cidr, const Node*>> by_cidr_;  // sorted by base
};

}  // namespace mesh::catalog
