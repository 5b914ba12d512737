// SPDX-License-Identifier: Apache-2.0
// service-intentions.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "agent/config/entry_fields.h"

namespace mesh::config {
namespace {

using syntax::Fields;

constexpr std::size_t kMaxDescriptionBytes = 512;
constexpr std::uint32_t kExactDestination = 9;  // Consul's numbers, where namespaces are exact
constexpr std::uint32_t kAnyDestination = 6;

constexpr std::array kHeaderMatchers{
    Matcher{"Present", MatchBy::Present},   Matcher{"Exact", MatchBy::Exact},
    Matcher{"Prefix", MatchBy::Prefix},     Matcher{"Suffix", MatchBy::Suffix},
    Matcher{"Contains", MatchBy::Contains}, Matcher{"Regex", MatchBy::Regex}};

constexpr std::string_view kNoJwt =
    "tokens cannot be checked here, so what demands one is denied to everybody";

struct ClaimFields {};
struct ProviderFields {};
struct JwtFields {
  std::vector<ProviderFields> providers;
};

void decode_fields(Fields& f, ClaimFields&) {
  std::vector<std::string> path;
  std::string value;
  f.get("Path", path);
  f.get("Value", value);
}

void decode_fields(Fields& f, ProviderFields&) {
  std::string name;
  std::vector<ClaimFields> claims;
  f.required("Name", name);
  f.get("VerifyClaims", claims);
}

void decode_fields(Fields& f, JwtFields& out) { f.get("Providers", out.providers); }

// Whether a token is demanded. A requirement that names no provider demands nothing in Consul, but
// whoever wrote it wanted something.
bool read_jwt(Fields& f) {
  std::optional<JwtFields> jwt;
  f.get("JWT", jwt);
  if (!jwt) return false;
  f.warn("JWT", std::string(kNoJwt));
  return true;
}

struct PermissionHeader {
  HeaderMatch match;
};
struct PermissionHttp {
  HttpMatch match;
};

void decode_fields(Fields& f, PermissionHeader& out) {
  auto& match = out.match;
  f.required("Name", match.name);
  read_matcher(f, kHeaderMatchers, match.by, match.value);
  f.get("Invert", match.invert);
  if (f.get("IgnoreCase", match.ignore_case) && match.ignore_case &&
      (match.by == MatchBy::Present || match.by == MatchBy::Regex))
    f.error("IgnoreCase", "is only for Exact, Prefix, Suffix and Contains");
}

void decode_fields(Fields& f, PermissionHttp& out) {
  std::vector<PermissionHeader> headers;
  read_path(f, out.match);
  f.get("Header", headers);
  for (auto& header : headers) out.match.headers.push_back(std::move(header.match));
  read_methods(f, out.match.methods);
  if (out.match == HttpMatch{})
    f.error("is empty: expected a path, a header or methods (PathPrefix \"/\" is every request)");
}

}  // namespace

void decode_fields(Fields& f, Permission& out) {
  std::optional<PermissionHttp> http;
  f.required("Action", out.action);
  f.get("HTTP", http);
  out.needs_jwt = read_jwt(f);
  if (http)
    out.http = std::move(http->match);
  else if (!out.needs_jwt && !f.given("HTTP"))
    f.missing("HTTP");
}

void decode_fields(Fields& f, IntentionSource& out) {
  if (f.required("Name", out.name) && out.name != "*" && !is_service_name(out.name))
    f.wrong("Name", "the name of a service, or \"*\" for any");
  own_tenancy(f);
  f.get("Peer", out.peer);
  if (!out.peer.empty()) {
    if (out.peer.find('*') != std::string::npos) f.error("Peer", "cannot have a '*'");
    f.warn("Peer", "there are no peers here: this source is nobody");
  }
  f.refuse("SamenessGroup", "sameness groups are of Consul Enterprise");
  std::string type;
  if (f.get("Type", type) && !type.empty() && type != "consul") f.wrong("Type", "\"consul\"");

  // Empty is the same as not there.
  const auto set = [&](std::string_view key) {
    const auto* value = f.value(key);
    return value != nullptr && !syntax::is_zero(*value);
  };
  if (set("Action")) f.get("Action", out.action);
  f.get("Permissions", out.permissions);
  if (set("Action") && set("Permissions"))
    f.error("Action", "cannot be given together with Permissions");
  if (!set("Action") && !set("Permissions"))
    f.error("expected an Action (\"allow\" or \"deny\") or Permissions");

  f.get("Description", out.description);
  if (out.description.size() > kMaxDescriptionBytes)
    f.error("Description", fmt::format("is longer than {} bytes", kMaxDescriptionBytes));
  // Consul writes it, and works it out again.
  f.ignore("Precedence");
  for (std::string_view key : {"LegacyID", "LegacyMeta", "LegacyCreateTime", "LegacyUpdateTime"})
    f.refuse(key, "is of intentions before Consul 1.9: leave it out");
}

void read_fields(Fields& f, ServiceIntentions& out) {
  const auto before = f.decoder().found();
  f.get("Sources", out.sources);
  out.needs_jwt = read_jwt(f);
  if (f.decoder().found() != before) return;
  if (out.sources.empty()) return f.error("Sources", "expected at least one source");
  const bool any_destination = out.name == "*";
  std::set<std::pair<std::string, std::string>> seen;
  for (auto& source : out.sources) {
    if (any_destination && !source.permissions.empty())
      f.error("Sources", "Permissions cannot be given for the destination \"*\"");
    if (!seen.emplace(source.peer, source.name).second)
      f.error("Sources", fmt::format("\"{}\" is there twice", syntax::printable(source.name)));
    source.precedence =
        (any_destination ? kAnyDestination : kExactDestination) - (source.name == "*" ? 1 : 0);
  }
  std::stable_sort(out.sources.begin(), out.sources.end(),
                   [](const auto& a, const auto& b) { return a.precedence > b.precedence; });
}

}  // namespace mesh::config
