// SPDX-License-Identifier: Apache-2.0
// The tree that every syntax is read into. Every value and every key knows its line and column.
// Knows nothing about services or config entries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "agent/syntax/errors.h"

namespace mesh::syntax {

struct Value;
struct Member;
using Array = std::vector<Value>;
using Object = std::vector<Member>;  // in the order of the file; the same key may occur twice

struct Value {
  Position at;
  // Integers beyond std::int64_t are held as double.
  std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Object> data;

  template <typename T>
  [[nodiscard]] const T* get() const {
    return std::get_if<T>(&data);
  }
  [[nodiscard]] bool is_null() const { return data.index() == 0; }
  [[nodiscard]] std::string describe() const;  // for messages: "text", 12, true, null, an array ...
  // Equal content; positions do not count.
  [[nodiscard]] bool operator==(const Value& other) const;
};

struct Member {
  std::string key;
  Position key_at;
  Value value;

  [[nodiscard]] bool operator==(const Member& other) const {
    return key == other.key && value == other.value;
  }
};

inline bool Value::operator==(const Value& other) const { return data == other.data; }

// Why a text is not of its syntax, and where. Nothing after it was looked at.
struct SyntaxError {
  Position at;
  std::string what;
};

inline constexpr std::size_t kMaxFileBytes = 8 * 1024 * 1024;
inline constexpr std::size_t kMaxDepth = 32;          // nested objects and arrays
inline constexpr std::size_t kMaxValues = 1'000'000;  // values in one file

}  // namespace mesh::syntax
