// SPDX-License-Identifier: Apache-2.0
// What a service speaks. Used by config entries and by the catalog alike.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace mesh::config {

enum class Protocol : std::uint8_t { Tcp, Http, Http2, Grpc };
std::string_view to_string(Protocol protocol);  // tcp, http, http2, grpc
// Exactly one of these words.
std::optional<Protocol> protocol_from(std::string_view text);
// Requests can be told apart: routers, splitters and permissions need it.
constexpr bool is_http_like(Protocol protocol) { return protocol != Protocol::Tcp; }

}  // namespace mesh::config
