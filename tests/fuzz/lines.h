// SPDX-License-Identifier: Apache-2.0
// Looks up positions in a text without the code under test.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "agent/syntax/errors.h"

namespace mesh::fuzz {

inline void require(bool condition, const char* what) {
  if (condition) return;
  (void)std::fprintf(stderr, "violated: %s\n", what);
  std::abort();
}

class Lines {
 public:
  // A byte order mark does not count.
  explicit Lines(std::string_view text)
      : text_(text.substr(text.starts_with("\xef\xbb\xbf") ? 3 : 0)) {
    starts_.push_back(0);
    for (std::size_t i = 0; i < text_.size(); ++i)
      if (text_[i] == '\n') starts_.push_back(i + 1);
  }

  // The byte at the position, NUL at the end. Aborts if there is no such place.
  [[nodiscard]] char at(syntax::Position position) const {
    require(position.line >= 1 && position.line <= starts_.size() && position.column >= 1, "line");
    std::size_t offset = starts_[position.line - 1];
    for (std::uint32_t column = 1; column < position.column; ++column) {
      require(offset < text_.size() && text_[offset] != '\n', "column");
      ++offset;
      while (offset < text_.size() && (static_cast<unsigned char>(text_[offset]) & 0xc0) == 0x80)
        ++offset;
    }
    return offset < text_.size() ? text_[offset] : '\0';
  }

 private:
  std::string_view text_;
  std::vector<std::size_t> starts_;
};

}  // namespace mesh::fuzz
