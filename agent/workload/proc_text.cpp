// SPDX-License-Identifier: Apache-2.0
#include "agent/workload/proc_text.h"

#include <charconv>

namespace mesh::workload {
namespace {

std::string_view next_field(std::string_view& line) {
  auto end = line.find(' ');
  auto field = line.substr(0, end);
  line.remove_prefix(end == std::string_view::npos ? line.size() : end + 1);
  return field;
}

bool octal(char c) { return c >= '0' && c <= '7'; }

// The kernel writes space, tab, newline and backslash as \ooo.
std::string unescape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && octal(text[i + 1]) && octal(text[i + 2]) &&
        octal(text[i + 3])) {
      out +=
          static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + text[i + 3] - '0');
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::optional<NetnsMount> parse_line(std::string_view line) {
  for (int skipped = 0; skipped < 3; ++skipped) (void)next_field(line);  // ids and device
  auto inode = parse_netns_link(next_field(line));
  if (!inode) return std::nullopt;
  auto path = next_field(line);
  (void)next_field(line);                             // mount options
  while (!line.empty() && next_field(line) != "-") {  // optional fields, any number
  }
  if (path.empty() || next_field(line) != "nsfs") return std::nullopt;
  return NetnsMount{*inode, unescape(path)};
}

}  // namespace

std::optional<ino_t> parse_netns_link(std::string_view text) {
  constexpr std::string_view kPrefix = "net:[";
  if (!text.starts_with(kPrefix) || !text.ends_with(']')) return std::nullopt;
  auto digits = text.substr(kPrefix.size(), text.size() - kPrefix.size() - 1);
  ino_t inode = 0;
  auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), inode);
  if (code != std::errc{} || end != digits.data() + digits.size() || inode == 0)
    return std::nullopt;
  return inode;
}

std::vector<NetnsMount> parse_netns_mounts(std::string_view mountinfo) {
  std::vector<NetnsMount> mounts;
  // A node has thousands of mounts and few of these: look for the type, then read that line.
  constexpr std::string_view kType = " - nsfs ";
  for (auto at = mountinfo.find(kType); at != std::string_view::npos;
       at = mountinfo.find(kType, at + kType.size())) {
    auto begin = mountinfo.rfind('\n', at);
    begin = begin == std::string_view::npos ? 0 : begin + 1;
    auto end = mountinfo.find('\n', at);
    if (end == std::string_view::npos) break;  // the text was cut: the next read has the line whole
    if (auto mount = parse_line(mountinfo.substr(begin, end - begin)))
      mounts.push_back(std::move(*mount));
  }
  return mounts;
}

std::string printable(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c < 0x20 || c > 0x7e) c = '?';
  return out;
}

}  // namespace mesh::workload
