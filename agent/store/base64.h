// SPDX-License-Identifier: Apache-2.0
// RFC 4648 base64 with padding, as the gateway writes bytes.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mesh::store {

std::string base64(std::string_view bytes);
// Nothing if it is not exactly what base64() makes.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace mesh::store
