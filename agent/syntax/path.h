// SPDX-License-Identifier: Apache-2.0
// Where in a tree a value is, as "Routes[2].Match.HTTP": a chain on the stack that costs nothing
// until an error asks for its text.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace mesh::syntax {

// A parent and a key must outlive the path.
class Path {
 public:
  Path() = default;  // the document as a whole: ""
  explicit Path(std::string_view key) : key_(key) {}
  [[nodiscard]] Path operator/(std::string_view key) const { return {this, key, kNoIndex}; }
  [[nodiscard]] Path operator[](std::size_t index) const { return {this, {}, index}; }

  [[nodiscard]] std::string to_string() const;  // keys made printable

 private:
  static constexpr std::size_t kNoIndex = static_cast<std::size_t>(-1);
  Path(const Path* parent, std::string_view key, std::size_t index)
      : parent_(parent), key_(key), index_(index) {}

  const Path* parent_ = nullptr;
  std::string_view key_;
  std::size_t index_ = kNoIndex;
};

}  // namespace mesh::syntax
