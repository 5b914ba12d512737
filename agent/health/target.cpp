// SPDX-License-Identifier: Apache-2.0
#include "agent/health/target.h"

#include <algorithm>
#include <charconv>

namespace mesh::health {
namespace {

constexpr std::uint16_t kHttp = 80, kHttps = 443;

// host:port, [v6]:port, or a host alone if there is a port without one.
Status split(std::string_view text, std::uint16_t default_port, Target& out) {
  std::string_view port;
  if (text.starts_with('[')) {
    const auto end = text.find(']');
    if (end == text.npos) return fail("'{}' lacks a ]", text);
    out.host = text.substr(1, end - 1);
    port = text.substr(end + 1);
    if (!port.empty() && port.front() != ':') return fail("'{}' is not [address]:port", text);
  } else {
    const auto colon = text.rfind(':');
    out.host = text.substr(0, colon);
    port = colon == text.npos ? std::string_view{} : text.substr(colon);
  }
  if (port.empty() && default_port != 0) {
    out.port = default_port;
    return {};
  }
  if (!port.empty()) port.remove_prefix(1);
  const auto [stop, code] = std::from_chars(port.data(), port.data() + port.size(), out.port);
  if (code != std::errc{} || stop != port.data() + port.size() || out.port == 0)
    return fail("'{}' has no port from 1 to 65535", text);
  return {};
}

Result<Target> parse_url(std::string_view url) {
  Target target;
  if (url.starts_with("https://"))
    target.tls = true;
  else if (!url.starts_with("http://"))
    return fail("'{}' is no URL that begins with http:// or https://", url);
  url.remove_prefix(target.tls ? 8 : 7);
  url = url.substr(0, url.find('#'));
  const auto path = std::min(url.find('/'), url.find('?'));
  std::string_view at = url.substr(0, path);
  if (const auto user = at.rfind('@'); user != at.npos) at.remove_prefix(user + 1);
  MESH_TRY(split(at, target.tls ? kHttps : kHttp, target), "the URL of a check");
  target.path = path == url.npos ? "/" : std::string(url.substr(path));
  if (target.path.front() != '/') target.path.insert(0, "/");
  return target;
}

}  // namespace

Result<Target> parse_target(const catalog::HealthCheck& check) {
  if (check.kind == catalog::CheckKind::Http) return parse_url(check.target);
  Target target;
  target.tls = check.tls;
  const std::string_view text = check.target;
  const auto slash = check.kind == catalog::CheckKind::Grpc ? text.find('/') : text.npos;
  MESH_TRY(split(text.substr(0, slash), 0, target), "the target of a check");
  if (slash != text.npos) target.path = text.substr(slash + 1);
  return target;
}

Result<Target> redirect(const Target& from, std::string_view location) {
  if (location.starts_with("//") || !location.starts_with('/')) return parse_url(location);
  Target target = from;
  target.path = location.substr(0, location.find('#'));
  return target;
}

Result<Endpoint> endpoint_of(const Target& target, const std::vector<Address>& own) {
  if (target.host.empty() || target.host == "localhost")
    return Endpoint{*Address::parse("127.0.0.1"), target.port};
  const auto address = Address::parse(target.host);
  if (!address) return fail("'{}' is not an address of the workload, nor localhost", target.host);
  if (!address->is_loopback() && std::find(own.begin(), own.end(), *address) == own.end())
    return fail("{} is not an address of the workload: a check is of the instance that has it",
                target.host);
  return Endpoint{*address, target.port};
}

std::string authority(const Target& target) {
  const std::string host = target.host.empty() ? "localhost" : target.host;
  const std::string name = host.find(':') != host.npos ? "[" + host + "]" : host;
  return name + ":" + std::to_string(target.port);
}

}  // namespace mesh::health
