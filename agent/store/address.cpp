// SPDX-License-Identifier: Apache-2.0
#include "agent/store/address.h"

#include <algorithm>
#include <charconv>

#include "agent/base/address.h"
#include "agent/base/trusted_file.h"

namespace mesh::store {
namespace {

constexpr std::string_view kDefaultPort = "2379";
constexpr std::size_t kMaxEndpoints = 32;
constexpr std::string_view kForm = "etcd://HOST:PORT[,HOST:PORT...], or etcds:// with TLS";

bool is_host_name(std::string_view host) {
  return !host.empty() && host.size() <= 253 && host.front() != '-' &&
         std::all_of(host.begin(), host.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '.' || c == '_';
         });
}

Result<StoreEndpoint> parse_endpoint(std::string_view text) {
  StoreEndpoint endpoint{"", std::string(kDefaultPort)};
  std::string_view rest;
  if (text.starts_with('[')) {
    const auto end = text.find(']');
    if (end == std::string_view::npos) return fail("'{}' has no ']'", text);
    endpoint.host = text.substr(1, end - 1);
    rest = text.substr(end + 1);
    if (!Address::parse(endpoint.host)) return fail("'{}' is not an IPv6 address", endpoint.host);
  } else {
    const auto colon = text.find(':');
    endpoint.host = text.substr(0, colon);
    rest = colon == std::string_view::npos ? std::string_view() : text.substr(colon);
    if (!is_host_name(endpoint.host))
      return fail("'{}' is not HOST:PORT (an IPv6 address needs brackets)", text);
  }
  if (rest.empty()) return endpoint;
  std::uint16_t port = 0;
  const char* end = rest.data() + rest.size();
  auto [stop, code] = std::from_chars(rest.data() + 1, end, port);
  if (rest.front() != ':' || code != std::errc{} || stop != end || port == 0)
    return fail("'{}' has no port of 1 to 65535", text);
  endpoint.port = std::to_string(port);
  return endpoint;
}

}  // namespace

std::string StoreEndpoint::to_string() const {
  return host.find(':') == std::string::npos ? host + ":" + port : "[" + host + "]:" + port;
}

Result<StoreAddress> parse_store(std::string_view text) {
  StoreAddress address;
  std::string_view rest = text;
  if (rest.starts_with("etcds://")) {
    address.tls = true;
    rest.remove_prefix(8);
  } else if (rest.starts_with("etcd://")) {
    rest.remove_prefix(7);
  } else {
    return fail("'{}': expected {}", text, kForm);
  }
  while (true) {
    const auto comma = rest.find(',');
    auto endpoint = parse_endpoint(rest.substr(0, comma));
    if (!endpoint) return tl::unexpected(std::move(endpoint).error());
    if (std::find(address.endpoints.begin(), address.endpoints.end(), *endpoint) !=
        address.endpoints.end())
      return fail("{} is given twice", endpoint->to_string());
    address.endpoints.push_back(std::move(*endpoint));
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  if (address.endpoints.size() > kMaxEndpoints)
    return fail("more than {} endpoints", kMaxEndpoints);
  return address;
}

Status check_access(const StoreAddress& address, const StoreAccess& access) {
  if (!address.tls &&
      (!access.ca_file.empty() || !access.cert_file.empty() || !access.key_file.empty()))
    return fail("certificates are for etcds://, but --store says etcd://");
  if (access.cert_file.empty() != access.key_file.empty())
    return fail("--store-cert-file and --store-key-file go together");
  if (access.user.empty() != access.password_file.empty())
    return fail("--store-user and --store-password-file go together");
  return {};
}

Result<std::string> read_password(const std::string& file) {
  auto text = read_secret_file(file);
  if (!text) return context(std::move(text).error(), "--store-password-file");
  std::string line(text->view().substr(0, text->view().find('\n')));
  if (!line.empty() && line.back() == '\r') line.pop_back();
  if (line.empty()) return fail("--store-password-file {}: the first line is empty", file);
  return line;
}

}  // namespace mesh::store
