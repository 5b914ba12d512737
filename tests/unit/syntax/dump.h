// SPDX-License-Identifier: Apache-2.0
// A tree as one line of text, to compare what readers of different syntaxes make.
#pragma once

#include <fmt/format.h>

#include <string>

#include "agent/syntax/value.h"

namespace mesh::syntax {

inline std::string dump(const Value& value) {
  std::string out;
  if (const auto* flag = value.get<bool>()) return *flag ? "true" : "false";
  if (const auto* integer = value.get<std::int64_t>()) return fmt::format("{}", *integer);
  if (const auto* number = value.get<double>()) return fmt::format("{}f", *number);
  if (const auto* text = value.get<std::string>()) {
    out = "'";
    for (char c : *text) {
      const auto byte = static_cast<unsigned char>(c);
      out += byte < 0x20 ? fmt::format("\\{:02x}", byte) : std::string(1, c);
    }
    return out + "'";
  }
  if (const auto* array = value.get<Array>()) {
    for (const auto& element : *array) out += (out.empty() ? "" : ", ") + dump(element);
    return "[" + out + "]";
  }
  if (const auto* object = value.get<Object>()) {
    for (const auto& member : *object)
      out += (out.empty() ? "" : ", ") + member.key + ": " + dump(member.value);
    return "{" + out + "}";
  }
  return "null";
}

}  // namespace mesh::syntax
