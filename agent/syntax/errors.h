// SPDX-License-Identifier: Apache-2.0
// What is wrong with a configuration file and where. Shared by everything that reads configuration.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

namespace mesh::syntax {

// One-based. A column is a character (code point), a tab counts as one; {0, 0} is the file as a
// whole.
struct Position {
  std::uint32_t line = 0;
  std::uint32_t column = 0;
  auto operator<=>(const Position&) const = default;
};

struct ConfigError {
  std::string file;  // empty for "and N more errors"
  Position at;
  std::string key;   // "services[2].meta.mesh-path"; empty for the file as a whole
  std::string what;  // one sentence: what is expected, what is there

  [[nodiscard]] std::string to_string() const;  // file:line:column: key: what
  bool operator==(const ConfigError&) const = default;
};

// Collects errors up to a bound, counts the rest.
class ErrorList {
 public:
  static constexpr std::size_t kMaxErrors = 50;

  void add(ConfigError error);
  [[nodiscard]] bool empty() const { return errors_.empty(); }
  [[nodiscard]] bool full() const { return errors_.size() == kMaxErrors; }  // only counts from here
  // Sorted by file and position. When the bound was hit, the last element says how many are left
  // out.
  [[nodiscard]] std::vector<ConfigError> take();

 private:
  std::vector<ConfigError> errors_;
  std::size_t omitted_ = 0;
};

// What a reader returns that has one thing to say about a file as a whole.
tl::unexpected<std::vector<ConfigError>> refuse(const std::string& file, std::string what);

// Text from a file made fit for a message: control characters escaped, at most 64 bytes of it.
std::string printable(std::string_view text);

}  // namespace mesh::syntax
