// SPDX-License-Identifier: Apache-2.0
// SPIFFE IDs (SPIFFE-ID standard, section 2) and Consul's form of them. Grammar only; who may have
// which ID is decided elsewhere.
#pragma once

#include <compare>
#include <optional>
#include <string>
#include <string_view>

#include "agent/base/result.h"

namespace mesh::ktls {

// spiffe://<trust-domain>/ns/<ns>/dc/<dc>/svc/<service>
struct ConsulService {
  std::string ns;
  std::string dc;
  std::string service;
  auto operator<=>(const ConsulService&) const = default;
};

class SpiffeId {
 public:
  SpiffeId() = default;  // empty: no identity
  // Strict: at most 2048 bytes, scheme "spiffe", trust domain of 1 to 255 [a-z0-9._-], path
  // segments of [A-Za-z0-9._-] that are neither empty, "." nor "..", no trailing slash, no
  // percent-encoding, no port, user, query or fragment. The path may be empty (a signing
  // certificate has none).
  static Result<SpiffeId> parse(std::string_view uri);
  // Fails when a part is not a valid path segment.
  static Result<SpiffeId> of_service(std::string_view trust_domain, const ConsulService& service);
  // True for a valid trust domain name (without the scheme).
  static bool valid_trust_domain(std::string_view name);

  [[nodiscard]] bool empty() const { return uri_.empty(); }
  [[nodiscard]] const std::string& uri() const { return uri_; }
  [[nodiscard]] std::string_view trust_domain() const;
  [[nodiscard]] std::string_view path() const;  // with the leading slash, or empty
  // The parts when the path has Consul's form.
  [[nodiscard]] std::optional<ConsulService> service() const;
  auto operator<=>(const SpiffeId&) const = default;

 private:
  explicit SpiffeId(std::string uri) : uri_(std::move(uri)) {}
  std::string uri_;
};

}  // namespace mesh::ktls
