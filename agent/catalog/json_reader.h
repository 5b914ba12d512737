// SPDX-License-Identifier: Apache-2.0
// JSON text to a tree in which every value and every key knows its line and column. The grammar is
// nlohmann's; the positions and the bounds are ours. Knows nothing about services.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <variant>
#include <vector>

#include "agent/catalog/errors.h"

namespace mesh::catalog {

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
  [[nodiscard]] std::string describe() const;  // for messages: "text", 12, true, null, an array ...
};

struct Member {
  std::string key;
  Position key_at;
  Value value;
};

struct JsonError {
  Position at;
  std::string what;
};

inline constexpr std::size_t kMaxFileBytes = 8 * 1024 * 1024;
inline constexpr std::size_t kMaxDepth = 32;          // nested objects and arrays
inline constexpr std::size_t kMaxValues = 1'000'000;  // values in one file

// Accepts a UTF-8 byte order mark, LF and CR LF. Refuses comments, NUL, and anything not UTF-8.
tl::expected<Value, JsonError> read_json(std::string_view text);

}  // namespace mesh::catalog
