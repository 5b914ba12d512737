// SPDX-License-Identifier: Apache-2.0
// What the names below our domain mean, from one snapshot of the catalog. Consul's forms:
//
//   <service>.virtual.<domain>                  A, AAAA  the service's VIPs
//   [<tag>.]<service>.service.<domain>          A, AAAA, SRV  its healthy endpoints
//   _<service>._<tag or tcp>.service.<domain>   the same by RFC 2782
//   <hex address>.addr.<domain>                 A, AAAA  what SRV records point at
//   <node>.node.<domain>                        A, AAAA  the node's own address
//
// Between the kind (virtual, service, ...) and the domain may stand <datacenter>, <dc>.dc, <ns>.ns
// and <ap>.ap. There is one datacenter, namespace and partition: of others nothing is known.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "agent/catalog/model.h"
#include "agent/dns/message.h"

namespace mesh::dns {

struct ZoneOptions {
  std::string domain = "consul";  // lower case, without dots at its ends
  std::string datacenter = "dc1";
};

// Domain names of --dns-domain: 1 to 3 labels of letters, digits and '-', together 100 bytes.
Result<std::string> check_domain(std::string_view text);

class Zone {
 public:
  // An instance that answers may name. The catalog says which exist, this says which are healthy.
  using Usable = std::function<bool(const catalog::Service&, const catalog::Instance&)>;

  Zone(ZoneOptions options, std::shared_ptr<const catalog::Catalog> catalog, Usable usable);

  // Nothing for names of others, which are to be forwarded. `turn` moves on for every question:
  // the order of the endpoints turns with it.
  [[nodiscard]] std::optional<Reply> answer(const Question& question, std::uint32_t turn) const;

 private:
  using Labels = std::vector<std::string>;
  struct Found {
    const catalog::Service* service = nullptr;
    std::string tag;
  };

  [[nodiscard]] bool owns(const Labels& labels) const;
  [[nodiscard]] bool strip_places(Labels& labels) const;
  [[nodiscard]] Reply virtual_addresses(const Labels& name, std::uint16_t type) const;
  [[nodiscard]] Reply endpoints(const Labels& name, std::uint16_t type, std::uint32_t turn) const;
  [[nodiscard]] Reply node(const Labels& name, std::uint16_t type) const;
  [[nodiscard]] Reply hex_address(const Labels& name, std::uint16_t type) const;
  [[nodiscard]] Found find(const Labels& name) const;
  [[nodiscard]] const catalog::Service* service(const std::string& name) const;
  [[nodiscard]] const catalog::Node* node_named(const std::string& name) const;
  [[nodiscard]] std::string address_name(const Address& address) const;
  [[nodiscard]] Reply no_name() const;
  [[nodiscard]] Reply no_data() const;

  const ZoneOptions options_;
  const std::shared_ptr<const catalog::Catalog> catalog_;
  const Usable usable_;
  Labels domain_;
  // By the name in lower case: those that are not written so. There is a zone for every catalog,
  // and nearly all names are found in that.
  std::unordered_map<std::string, const catalog::Service*> services_;
  std::unordered_map<std::string, const catalog::Node*> nodes_;
};

}  // namespace mesh::dns
