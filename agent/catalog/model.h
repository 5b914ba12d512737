// SPDX-License-Identifier: Apache-2.0
// The catalog: which services there are, where their instances listen, which node has which
// addresses, and the config entries beside them. A snapshot is immutable, so it may be shared
// between threads; whoever holds one sees one consistent state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/base/address.h"
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

struct Instance {
  std::string id;  // unique in the catalog
  Address address;
  std::uint16_t port = 0;  // host byte order, never 0
  std::vector<std::string> tags;
  std::map<std::string, std::string> meta;  // as written, mesh-* keys included

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

  bool operator==(const Node&) const = default;
};

class Catalog {
 public:
  using Services = std::map<std::string, Service, std::less<>>;
  using Nodes = std::map<std::string, Node, std::less<>>;

  Catalog() = default;
  // Both are keyed by name; (address, port) is unique among all instances, and no two CIDRs of
  // nodes overlap. Without entries there are none.
  explicit Catalog(Services services, Nodes nodes = {},
                   std::shared_ptr<const config::Entries> entries = nullptr);
  Catalog(const Catalog&) = delete;  // the indexes point into the map
  Catalog& operator=(const Catalog&) = delete;

  [[nodiscard]] const Services& services() const { return services_; }
  [[nodiscard]] std::size_t instances() const { return by_endpoint_.size(); }
  [[nodiscard]] const Nodes& nodes() const { return nodes_; }
  // The services have been given what it says of them.
  [[nodiscard]] const config::Entries& entries() const { return *entries_; }
  [[nodiscard]] const Service* find(std::string_view name) const;
  // Every service with an instance at the address, by name. Pointers live as long as the catalog.
  [[nodiscard]] std::vector<const Service*> services_at(const Address& address) const;
  [[nodiscard]] const Service* service_at(const Endpoint& endpoint) const;
  // The node one of whose CIDRs contains the address, by the catalog alone: it may be this node.
  // The pointer lives as long as the catalog.
  [[nodiscard]] const Node* node_of(const Address& address) const;
  // The service that gives a workload its identity: the first by name with an instance at one of
  // its addresses; null if there is none. The addresses of another node's workload are only known
  // one by one, so each of them is asked for by itself.
  [[nodiscard]] const Service* identity_of(std::span<const Address> addresses) const;
  [[nodiscard]] std::optional<std::string_view> identity_of(const Address& address) const;
  [[nodiscard]] bool operator==(const Catalog& other) const {
    return services_ == other.services_ && nodes_ == other.nodes_ && *entries_ == *other.entries_;
  }

 private:
  Services services_;
  Nodes nodes_;
  std::shared_ptr<const config::Entries> entries_ = std::make_shared<const config::Entries>();
  std::vector<std::pair<Endpoint, const Service*>> by_endpoint_;  // sorted by endpoint
  std::vector<std::pair<Cidr, const Node*>> by_cidr_;             // sorted by base
};

}  // namespace mesh::catalog
