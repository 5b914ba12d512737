// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/definition_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace mesh::catalog {
namespace {

constexpr std::size_t kMaxNameBytes = 63;
// Consul's own bounds for meta.
constexpr std::size_t kMaxMetaPairs = 64;
constexpr std::size_t kMaxMetaKeyBytes = 128;
constexpr std::size_t kMaxMetaValueBytes = 512;

bool is_alnum(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool is_meta_key(std::string_view key) {
  return !key.empty() && key.size() <= kMaxMetaKeyBytes &&
         std::all_of(key.begin(), key.end(),
                     [](char c) { return is_alnum(c) || c == '-' || c == '_'; });
}

}  // namespace

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes && is_alnum(name.front()) &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return is_alnum(c) || c == '-' || c == '_' || c == '.'; });
}

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) {
    auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 || byte == 0x7f;
  });
}

bool is_unicast(const Address& address) {
  const auto& bytes = address.bytes();
  bool any4 = address.is_v4() && bytes[12] == 0;
  bool multicast = address.is_v4() ? bytes[12] >= 224 && bytes[12] < 240 : bytes[0] == 0xff;
  bool virtual4 = address.is_v4() && bytes[12] >= 240;
  return !(address.is_unset() || any4 || multicast || virtual4 || address.is_loopback());
}

void DefinitionReader::error(syntax::Position at, std::string key, std::string what) {
  errors_.add({file_name_, at, std::move(key), std::move(what)});
  ++found_;
}

void DefinitionReader::given_twice(const syntax::Member& member, syntax::Position first,
                                   std::string key) {
  error(member.key_at, std::move(key),
        fmt::format("given twice, first at line {} column {}", first.line, first.column));
}

void DefinitionReader::wrong_type(const syntax::Value& value, std::string key,
                                  std::string_view expected) {
  error(value.at, std::move(key), fmt::format("expected {}, got {}", expected, value.describe()));
}

std::map<std::string, std::string> DefinitionReader::meta(
    const syntax::Value& value, const std::string& path,
    const std::function<void(const syntax::Member&, const std::string& key)>& on_mesh) {
  std::map<std::string, std::string> out;
  const auto* object = value.get<syntax::Object>();
  if (object == nullptr || object->size() > kMaxMetaPairs) {
    wrong_type(value, path, "an object of at most 64 strings");
    return out;
  }
  std::map<std::string_view, syntax::Position> seen;
  for (const auto& member : *object) {
    std::string key = fmt::format("{}.{}", path, syntax::printable(member.key));
    auto [first, fresh] = seen.emplace(member.key, member.key_at);
    if (!fresh) {
      given_twice(member, first->second, std::move(key));
      continue;
    }
    if (!is_meta_key(member.key)) {
      error(member.key_at, std::move(key),
            "expected a key of 1 to 128 letters, digits, '-' or '_'");
      continue;
    }
    const auto* text = member.value.get<std::string>();
    if (text == nullptr || text->size() > kMaxMetaValueBytes) {
      wrong_type(member.value, std::move(key), "a string of at most 512 bytes");
      continue;
    }
    if (member.key.starts_with("mesh-")) on_mesh(member, key);
    out.emplace(member.key, *text);
  }
  return out;
}

}  // namespace mesh::catalog
