// SPDX-License-Identifier: Apache-2.0
// What the relay itself reads of the agent at the other end of a mesh leg: the SNI, before anybody
// has proved who he is, the request and the reply. Invariants: what is taken is what was meant, so
// it is the same bytes when it is written again.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include "agent/base/ascii.h"
#include "agent/relay/mesh_message.h"
#include "tests/fuzz/fuzz_view.h"

namespace {

using namespace mesh::relay;

void require(bool condition) {
  if (!condition) std::abort();
}

template <std::size_t N>
std::array<std::byte, N> message_of(const std::uint8_t* data, std::size_t size) {
  std::array<std::byte, N> bytes{};
  for (std::size_t i = 0; i < std::min(N, size); ++i) bytes[i] = std::byte{data[i]};
  return bytes;
}

void request(const std::uint8_t* data, std::size_t size) {
  const auto bytes = message_of<kMeshRequestBytes>(data, size);
  const auto request = decode_request(bytes);
  if (!request) return;
  require(request->port != 0);
  require(encode(*request) == bytes);
}

void reply(const std::uint8_t* data, std::size_t size) {
  const auto bytes = message_of<kMeshReplyBytes>(data, size);
  const auto reply = decode_reply(bytes);
  if (!reply) return;
  require(reply->connected == (bytes[1] == std::byte{0}));
  require(static_cast<std::size_t>(reply->reason) < kDialReasons);
  require(!to_string(reply->reason).empty());
  // A reason of a later version is an error of this one.
  if (std::to_integer<std::size_t>(bytes[1]) <= kDialReasons) require(encode(*reply) == bytes);
}

void sni(const std::uint8_t* data, std::size_t size) {
  using mesh::ascii::lower_case;
  static const mesh::capture::MeshView view = mesh::test::view_of({"db", "Web", "w", "a.b", "-"});
  const std::string name(reinterpret_cast<const char*>(data), size);
  // As it is, and with the suffix that it is so hard to guess.
  for (const auto& asked : {name, mesh::capture::sni_of(view, name)}) {
    const auto* service = mesh::capture::service_of_sni(view, asked, mesh::test::kServer);
    if (service == nullptr) continue;
    require(lower_case(mesh::capture::sni_of(view, service->name)) == lower_case(asked));
  }
  const auto* service =
      mesh::capture::service_of_sni(view, mesh::capture::sni_of(view, name), mesh::test::kServer);
  bool known = false;
  for (const auto& [known_name, one] : view.catalog->services())
    known = known || lower_case(known_name) == lower_case(name);
  require((service != nullptr) == known);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  request(data, size);
  reply(data, size);
  sni(data, size);
  return 0;
}
