// SPDX-License-Identifier: Apache-2.0
#include "ktls/spiffe_id.h"

#include <algorithm>
#include <array>

namespace mesh::ktls {
namespace {

constexpr std::string_view kScheme = "spiffe://";
constexpr std::size_t kMaxUri = 2048;
constexpr std::size_t kMaxTrustDomain = 255;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_mark(char c) { return c == '.' || c == '_' || c == '-'; }

bool is_segment(std::string_view text) {
  return !text.empty() && text != "." && text != ".." &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return is_digit(c) || is_lower(c) || is_upper(c) || is_mark(c);
         });
}

// What is wrong with the path (with its leading slash), or null.
const char* path_error(std::string_view path) {
  while (!path.empty()) {
    path.remove_prefix(1);  // the slash
    const auto end = std::min(path.find('/'), path.size());
    const auto segment = path.substr(0, end);
    if (segment.empty()) return "the path has an empty segment or a trailing slash";
    if (segment == "." || segment == "..") return "the path has a dot segment";
    if (segment.find('%') != segment.npos) return "percent-encoding is not allowed";
    if (!is_segment(segment)) return "the path has a character outside [A-Za-z0-9._-]";
    path.remove_prefix(end);
  }
  return nullptr;
}

}  // namespace

bool SpiffeId::valid_trust_domain(std::string_view name) {
  return !name.empty() && name.size() <= kMaxTrustDomain &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return is_digit(c) || is_lower(c) || is_mark(c); });
}

Result<SpiffeId> SpiffeId::parse(std::string_view uri) {
  // The URI itself is not repeated in messages: it may be long, and anything but text.
  if (uri.size() > kMaxUri) return fail("SPIFFE ID: longer than {} bytes", kMaxUri);
  if (!uri.starts_with(kScheme)) return fail("SPIFFE ID: does not begin with {}", kScheme);
  const auto rest = uri.substr(kScheme.size());
  const auto slash = std::min(rest.find('/'), rest.size());
  if (!valid_trust_domain(rest.substr(0, slash)))
    return fail("SPIFFE ID: the trust domain is not 1 to {} characters of [a-z0-9._-]",
                kMaxTrustDomain);
  if (const char* error = path_error(rest.substr(slash)); error != nullptr)
    return fail("SPIFFE ID: {}", error);
  return SpiffeId(std::string(uri));
}

Result<SpiffeId> SpiffeId::of_service(std::string_view trust_domain, const ConsulService& service) {
  for (std::string_view part : {std::string_view(service.ns), std::string_view(service.dc),
                                std::string_view(service.service)})
    if (!is_segment(part))
      return fail("'{}' cannot be part of a SPIFFE ID: only [A-Za-z0-9._-], not '.' or '..'", part);
  return parse(fmt::format("{}{}/ns/{}/dc/{}/svc/{}", kScheme, trust_domain, service.ns, service.dc,
                           service.service));
}

std::string_view SpiffeId::trust_domain() const {
  if (empty()) return {};
  const auto rest = std::string_view(uri_).substr(kScheme.size());
  return rest.substr(0, rest.find('/'));
}

std::string_view SpiffeId::path() const {
  if (empty()) return {};
  return std::string_view(uri_).substr(kScheme.size() + trust_domain().size());
}

std::optional<ConsulService> SpiffeId::service() const {
  // "", "ns", <ns>, "dc", <dc>, "svc", <service>
  std::array<std::string_view, 7> parts;
  std::size_t count = 0;
  auto rest = path();
  if (rest.empty()) return std::nullopt;
  for (;;) {
    if (count == parts.size()) return std::nullopt;
    const auto end = rest.find('/');
    parts[count++] = rest.substr(0, end);
    if (end == rest.npos) break;
    rest.remove_prefix(end + 1);
  }
  if (count != parts.size() || parts[1] != "ns" || parts[3] != "dc" || parts[5] != "svc")
    return std::nullopt;
  return ConsulService{std::string(parts[2]), std::string(parts[4]), std::string(parts[6])};
}

}  // namespace mesh::ktls
