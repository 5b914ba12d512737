// SPDX-License-Identifier: Apache-2.0
#include "agent/syntax/errors.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

namespace mesh::syntax {

std::string printable(std::string_view text) {
  constexpr std::size_t kMaxBytes = 64;
  std::size_t end = std::min(text.size(), kMaxBytes);
  // Never cut through a UTF-8 sequence.
  while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80)
    --end;
  std::string out;
  for (char c : text.substr(0, end)) {
    auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f)
      out += fmt::format("\\x{:02x}", byte);
    else
      out += c;
  }
  if (end < text.size()) out += "...";
  return out;
}

tl::unexpected<std::vector<ConfigError>> refuse(const std::string& file, std::string what) {
  return tl::unexpected(std::vector<ConfigError>{{file, {}, {}, std::move(what)}});
}

std::string ConfigError::to_string() const {
  std::string out = file;
  if (at.line != 0) out += fmt::format(":{}:{}", at.line, at.column);
  if (!out.empty()) out += ": ";
  if (!key.empty()) out += key + ": ";
  return out + what;
}

void ErrorList::add(ConfigError error) {
  if (errors_.size() < kMaxErrors)
    errors_.push_back(std::move(error));
  else
    ++omitted_;
}

std::vector<ConfigError> ErrorList::take() {
  std::stable_sort(errors_.begin(), errors_.end(), [](const ConfigError& a, const ConfigError& b) {
    return std::tie(a.file, a.at) < std::tie(b.file, b.at);
  });
  if (omitted_ > 0) errors_.push_back({{}, {}, {}, fmt::format("and {} more errors", omitted_)});
  omitted_ = 0;
  return std::exchange(errors_, {});
}

}  // namespace mesh::syntax
