// SPDX-License-Identifier: Apache-2.0
// The SPIFFE ID parser against arbitrary bytes: what it accepts has nothing that a later reader
// could take for something else.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "ktls/spiffe_id.h"

namespace {

using mesh::ktls::SpiffeId;

void require(bool condition, const char* what) {
  if (condition) return;
  (void)std::fprintf(stderr, "violated: %s\n", what);
  std::abort();
}

void check(std::string_view uri) {
  const auto id = SpiffeId::parse(uri);
  if (!id) {
    require(id.error().what.size() < 200, "length of a message");
    return;
  }
  require(id->uri() == uri, "changed");
  require(uri.size() <= 2048 && uri.starts_with("spiffe://"), "prefix");
  require("spiffe://" + std::string(id->trust_domain()) + std::string(id->path()) == uri, "parts");
  require(SpiffeId::valid_trust_domain(id->trust_domain()), "trust domain");
  for (char c : id->trust_domain()) require(c < 'A' || c > 'Z', "upper case in the trust domain");
  const std::string path = std::string(id->path()) + "/";
  for (char c : path)
    require((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                c == '.' || c == '_' || c == '-' || c == '/',
            "character");
  for (std::string_view bad : {"//", "/./", "/../"})
    require(path.find(bad) == path.npos, "segment");
  if (const auto service = id->service()) {
    const auto again = SpiffeId::of_service(id->trust_domain(), *service);
    require(again && *again == *id, "service");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check(text);
  check("spiffe://" + std::string(text));
  check("spiffe://td/ns/" + std::string(text));
  const auto slash = text.find('/');
  if (slash == text.npos) return 0;
  const mesh::ktls::ConsulService parts{std::string(text.substr(0, slash)), "dc1",
                                        std::string(text.substr(slash + 1))};
  if (const auto id = SpiffeId::of_service("td", parts)) {
    check(id->uri());
    require(id->service() == parts, "round trip");
  }
  return 0;
}
