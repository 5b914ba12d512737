// SPDX-License-Identifier: Apache-2.0
// Consul config entries as plain structs. A value of these types has passed the rules that hold for
// one entry alone (what chains and the whole set demand is another file's business); a field keeps
// "not given" apart from zero only where Consul does. Namespaces, partitions and datacenters of
// others are checked when read and not kept, where only the own one is possible.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "agent/config/protocol.h"

namespace mesh::config {

class Filter;

inline constexpr std::size_t kMaxEntries = 20'000;

enum class Kind : std::uint8_t {
  ServiceDefaults,
  ProxyDefaults,  // name: global
  Mesh,           // name: mesh
  ServiceResolver,
  ServiceSplitter,
  ServiceRouter,
  ServiceIntentions,  // name: the destination, "*" for any
};
std::string_view to_string(Kind kind);  // service-defaults, ...
std::optional<Kind> kind_of(std::string_view name);

using Duration = std::chrono::nanoseconds;
using StringMap = std::map<std::string, std::string, std::less<>>;

struct HeaderModifiers {
  StringMap add;
  StringMap set;
  std::vector<std::string> remove;

  [[nodiscard]] bool empty() const { return add.empty() && set.empty() && remove.empty(); }
  bool operator==(const HeaderModifiers&) const = default;
};

enum class MatchBy : std::uint8_t { Present, Exact, Prefix, Suffix, Contains, Regex };

struct HeaderMatch {
  std::string name;
  MatchBy by = MatchBy::Present;
  std::string value;  // empty with Present
  bool ignore_case = false;
  bool invert = false;
  bool operator==(const HeaderMatch&) const = default;
};

struct QueryParamMatch {
  std::string name;
  MatchBy by = MatchBy::Present;  // or Exact, Regex
  std::string value;
  bool operator==(const QueryParamMatch&) const = default;
};

enum class PathBy : std::uint8_t { Any, Exact, Prefix, Regex };

// All of it has to hold. A router's match and an intention's permission are the same to a request.
struct HttpMatch {
  PathBy path_by = PathBy::Any;
  std::string path;
  bool case_insensitive = false;  // of the path
  std::vector<HeaderMatch> headers;
  std::vector<QueryParamMatch> query;  // never of a permission
  std::vector<std::string> methods;    // upper case; empty: any
  bool operator==(const HttpMatch&) const = default;
};

// --- service-router

struct RouteDestination {
  std::string service;  // empty: the router's own
  std::string subset;
  std::string prefix_rewrite;
  Duration idle_timeout{};     // 0: not given
  Duration request_timeout{};  // 0: not given; below: none at all
  std::uint32_t retries = 0;   // NumRetries
  bool retry_on_connect_failure = false;
  std::vector<std::string> retry_on;
  std::vector<std::uint32_t> retry_on_status_codes;
  HeaderModifiers request_headers;
  HeaderModifiers response_headers;
  bool operator==(const RouteDestination&) const = default;
};

struct Route {
  std::optional<HttpMatch> match;  // none: every request
  RouteDestination destination;
  bool operator==(const Route&) const = default;
};

struct ServiceRouter {
  std::string name;
  StringMap meta;
  std::vector<Route> routes;  // the first that matches decides
  bool operator==(const ServiceRouter&) const = default;
};

// --- service-splitter

struct Split {
  std::uint32_t weight = 0;  // in hundredths of a percent; all of a splitter make 10,000
  std::string service;       // empty: the splitter's own
  std::string subset;
  HeaderModifiers request_headers;
  HeaderModifiers response_headers;
  bool operator==(const Split&) const = default;
};

struct ServiceSplitter {
  std::string name;
  StringMap meta;
  std::vector<Split> splits;
  bool operator==(const ServiceSplitter&) const = default;
};

// --- service-resolver

struct Subset {
  std::string filter;                      // empty: every instance
  std::shared_ptr<const Filter> compiled;  // of `filter`; null if that is empty
  bool only_passing = false;
  bool operator==(const Subset& other) const {
    return filter == other.filter && only_passing == other.only_passing;
  }
};

// Where else to go. What is in another datacenter or with a peer has no endpoints here.
struct Target {
  std::string service;  // empty: the resolver's own
  std::string subset;   // empty: the default subset of the service
  std::string datacenter;
  std::string peer;
  bool operator==(const Target&) const = default;
};

struct Failover {
  std::vector<Target> targets;  // in order, at least one
  bool operator==(const Failover&) const = default;
};

enum class Balance : std::uint8_t {
  Default,
  Random,
  RoundRobin,
  LeastRequest,
  RingHash,
  Maglev,
};

enum class HashField : std::uint8_t { Header, Cookie, QueryParameter, SourceIp };

struct HashPolicy {
  HashField field = HashField::SourceIp;
  std::string value;  // name of the header, cookie or parameter
  bool cookie_session = false;
  Duration cookie_ttl{};
  std::string cookie_path;
  bool terminal = false;
  bool operator==(const HashPolicy&) const = default;
};

struct LoadBalancer {
  Balance policy = Balance::Default;
  std::uint64_t min_ring_size = 0;  // 0: not given
  std::uint64_t max_ring_size = 0;
  std::uint32_t choice_count = 0;
  std::vector<HashPolicy> hash_policies;
  bool operator==(const LoadBalancer&) const = default;
};

struct ServiceResolver {
  std::string name;
  StringMap meta;
  std::string default_subset;
  std::map<std::string, Subset, std::less<>> subsets;
  std::optional<Target> redirect;
  std::map<std::string, Failover, std::less<>> failover;  // by subset, "*" for the others
  Duration connect_timeout{};                             // 0: not given
  Duration request_timeout{};
  std::optional<LoadBalancer> load_balancer;
  bool operator==(const ServiceResolver&) const = default;
};

// --- service-intentions

enum class Action : std::uint8_t { Deny, Allow };

struct Permission {
  Action action = Action::Deny;
  std::optional<HttpMatch> http;  // none only with needs_jwt
  bool needs_jwt = false;         // a token is demanded that nobody here can check: deny
  bool operator==(const Permission&) const = default;
};

struct IntentionSource {
  std::string name;                     // "*": any
  std::string peer;                     // not empty: of another mesh, so it is nobody here
  std::optional<Action> action;         // given exactly if `permissions` is empty
  std::vector<Permission> permissions;  // in order, the first that matches decides
  std::string description;
  std::uint32_t precedence = 0;  // by Consul's rule, of the two names
  bool operator==(const IntentionSource&) const = default;
};

struct ServiceIntentions {
  std::string name;
  StringMap meta;
  std::vector<IntentionSource> sources;  // highest precedence first
  bool needs_jwt = false;                // for every source: deny
  bool operator==(const ServiceIntentions&) const = default;
};

// --- service-defaults, proxy-defaults, mesh

enum class MutualTlsMode : std::uint8_t { Default, Strict, Permissive };

struct PassiveHealthCheck {
  Duration interval{};  // fields that are 0 are not given
  std::uint32_t max_failures = 0;
  std::optional<std::uint32_t> enforcing_consecutive_5xx;
  std::optional<std::uint32_t> max_ejection_percent;
  std::optional<Duration> base_ejection_time;
  bool operator==(const PassiveHealthCheck&) const = default;
};

struct UpstreamLimits {
  std::optional<std::uint32_t> max_connections;  // 0 is none at all
  std::optional<std::uint32_t> max_pending_requests;
  std::optional<std::uint32_t> max_concurrent_requests;
  bool operator==(const UpstreamLimits&) const = default;
};

struct UpstreamConfig {
  std::string name;  // of an override; empty for the defaults
  std::optional<Protocol> protocol;
  std::optional<std::uint32_t> connect_timeout_ms;
  std::optional<UpstreamLimits> limits;
  std::optional<PassiveHealthCheck> passive_health_check;
  bool operator==(const UpstreamConfig&) const = default;
};

struct ServiceDefaults {
  std::string name;
  StringMap meta;
  std::optional<Protocol> protocol;  // none: proxy-defaults', then tcp
  MutualTlsMode mutual_tls = MutualTlsMode::Default;
  std::optional<UpstreamConfig> upstream_defaults;  // of UpstreamConfig
  std::vector<UpstreamConfig> upstream_overrides;   // each with a name
  std::uint32_t max_inbound_connections = 0;        // 0: any number
  std::uint32_t local_connect_timeout_ms = 0;       // 0: not given
  std::uint32_t local_request_timeout_ms = 0;
  bool operator==(const ServiceDefaults&) const = default;
};

struct ProxyDefaults {
  StringMap meta;
  std::optional<Protocol> protocol;  // the keys of Config that mean something to us
  std::optional<std::uint32_t> connect_timeout_ms;
  std::optional<std::uint32_t> local_connect_timeout_ms;
  std::optional<std::uint32_t> local_request_timeout_ms;
  MutualTlsMode mutual_tls = MutualTlsMode::Default;
  bool operator==(const ProxyDefaults&) const = default;
};

enum class EscapedSlashes : std::uint8_t {
  Default,
  KeepUnchanged,
  Reject,
  UnescapeAndRedirect,
  UnescapeAndForward,
};
enum class HeaderUnderscores : std::uint8_t { Allow, Reject, Drop };

struct RequestNormalization {
  bool disable_path_normalization = false;  // InsecureDisablePathNormalization
  bool merge_slashes = false;
  EscapedSlashes escaped_slashes = EscapedSlashes::Default;
  HeaderUnderscores header_underscores = HeaderUnderscores::Allow;
  bool operator==(const RequestNormalization&) const = default;
};

struct Mesh {
  StringMap meta;
  bool mesh_destinations_only = false;
  bool allow_enabling_permissive_mutual_tls = false;
  bool sanitize_x_forwarded_client_cert = false;
  bool validate_clusters = false;
  RequestNormalization normalization;
  bool operator==(const Mesh&) const = default;
};

// --- the set

using Entry = std::variant<ServiceDefaults, ProxyDefaults, Mesh, ServiceResolver, ServiceSplitter,
                           ServiceRouter, ServiceIntentions>;
Kind kind_of(const Entry& entry);
std::string_view name_of(const Entry& entry);

// All entries there are; immutable once shared. Each map is keyed by the name of its entry.
struct Entries {
  template <typename T>
  using ByName = std::map<std::string, T, std::less<>>;

  std::optional<ProxyDefaults> proxy_defaults;
  std::optional<Mesh> mesh;
  ByName<ServiceDefaults> service_defaults;
  ByName<ServiceResolver> resolvers;
  ByName<ServiceSplitter> splitters;
  ByName<ServiceRouter> routers;
  ByName<ServiceIntentions> intentions;

  // False, and nothing changed, if the set has an entry of that kind and name.
  bool add(Entry entry);
  [[nodiscard]] std::size_t size() const;
  // What the entries say: service-defaults, then proxy-defaults. Nothing: no entry says it.
  [[nodiscard]] std::optional<Protocol> protocol_of(std::string_view service) const;
  bool operator==(const Entries&) const = default;
};

}  // namespace mesh::config
