// SPDX-License-Identifier: Apache-2.0
// The selectors that a filter may use and what can be asked of each.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "agent/config/filter.h"

namespace mesh::config {

enum class FieldType : std::uint8_t { Text, Number, List, Map, Structs };

struct ResolvedField {
  Filter::Field field;
  FieldType type;
  std::string key;  // of a map's value
};

// Nothing: there is no such field, or this agent does not know it.
std::optional<ResolvedField> resolve_field(std::span<const std::string> path);
bool supports(FieldType type, Filter::Op op);
std::string_view to_string(FieldType type);  // "a text", ...

}  // namespace mesh::config
