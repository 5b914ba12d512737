// SPDX-License-Identifier: Apache-2.0
#include "agent/syntax/value.h"

#include <fmt/format.h>

namespace mesh::syntax {

std::string Value::describe() const {
  if (const auto* flag = get<bool>()) return *flag ? "true" : "false";
  if (const auto* integer = get<std::int64_t>()) return fmt::format("{}", *integer);
  if (const auto* number = get<double>()) return fmt::format("{}", *number);
  if (const auto* text = get<std::string>()) return fmt::format("\"{}\"", printable(*text));
  if (get<Array>() != nullptr) return "an array";
  if (get<Object>() != nullptr) return "an object";
  return "null";
}

}  // namespace mesh::syntax
