// SPDX-License-Identifier: Apache-2.0
#include "agent/syntax/path.h"

#include <fmt/format.h>

#include "agent/syntax/errors.h"

namespace mesh::syntax {

std::string Path::to_string() const {
  std::string out = parent_ != nullptr ? parent_->to_string() : std::string();
  if (index_ != kNoIndex) {
    out += fmt::format("[{}]", index_);
  } else if (!key_.empty() || parent_ != nullptr) {
    if (!out.empty()) out += '.';
    out += printable(key_);
  }
  return out;
}

}  // namespace mesh::syntax
