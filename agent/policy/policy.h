// SPDX-License-Identifier: Apache-2.0
// Who may talk to whom: Consul's intentions as one immutable snapshot. decide() is the one function
// for every path; what the datapath has is compiled from intentions(). README.md has the rules.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "agent/config/entries.h"

namespace mesh::policy {

enum class Verdict : std::uint8_t { Allow, Deny };
std::string_view to_string(Verdict verdict);  // allow, deny

inline constexpr std::string_view kAny = "*";

// Why an intention says of a whole connection what it says.
enum class Why : std::uint8_t {
  Action,             // its Action
  PermissionsAllow,   // Permissions by which no request could be denied
  PermissionsUnseen,  // Permissions by which a request could be denied, and nobody reads requests
  PermissionsOnTcp,   // Permissions for a service that does not speak HTTP
  Token,              // a token is demanded that nobody here can check
};
std::string_view to_string(Why why);

struct Intention {
  std::string source;       // service name, or "*"
  std::string destination;  // service name, or "*"
  std::uint32_t precedence = 0;
  Verdict verdict = Verdict::Deny;  // of a connection as a whole
  Why why = Why::Action;
  std::string description;
  std::size_t permissions = 0;  // how many it has; 0: an Action

  bool operator==(const Intention&) const = default;
};

struct Decision {
  Verdict verdict = Verdict::Deny;
  const Intention* intention = nullptr;  // lives as long as the policy; null: the default policy

  [[nodiscard]] bool allowed() const { return verdict == Verdict::Allow; }
  // "web -> api: deny, by its action", "default policy: allow"
  [[nodiscard]] std::string to_string() const;
};

class Policy {
 public:
  // Whether requests to this service can be told apart.
  using HttpLike = std::function<bool(std::string_view service)>;

  explicit Policy(Verdict default_verdict = Verdict::Allow) : default_(default_verdict) {}
  Policy(const config::Entries::ByName<config::ServiceIntentions>& entries, Verdict default_verdict,
         const HttpLike& http_like);
  Policy(const Policy&) = delete;  // decisions point into it
  Policy& operator=(const Policy&) = delete;

  // An empty name is a workload that no service names: only "*" and the default speak of it.
  [[nodiscard]] Decision decide(std::string_view source, std::string_view destination) const;
  // A port that no service has: what any service of the workload refuses is refused. None: as if
  // its name were empty.
  [[nodiscard]] Decision decide(std::string_view source,
                                std::span<const std::string_view> destinations) const;

  // What speaks of connections to the service, highest precedence first, then by source.
  [[nodiscard]] std::vector<const Intention*> match(std::string_view destination) const;
  [[nodiscard]] std::vector<const Intention*> intentions() const;
  [[nodiscard]] Verdict default_verdict() const { return default_; }
  // Nothing is ever denied.
  [[nodiscard]] bool trivial() const {
    return by_destination_.empty() && default_ == Verdict::Allow;
  }

  [[nodiscard]] bool operator==(const Policy& other) const {
    return default_ == other.default_ && by_destination_ == other.by_destination_;
  }

 private:
  using BySource = std::map<std::string, Intention, std::less<>>;

  [[nodiscard]] const Intention* find(std::string_view source, std::string_view destination) const;

  Verdict default_;
  std::map<std::string, BySource, std::less<>> by_destination_;
};

}  // namespace mesh::policy
