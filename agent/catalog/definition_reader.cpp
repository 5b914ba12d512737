// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/definition_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "agent/base/ascii.h"

namespace mesh::catalog {
namespace {

constexpr std::size_t kMaxNameBytes = 63;
// Consul's own bounds for meta.
constexpr std::size_t kMaxMetaPairs = 64;
constexpr std::size_t kMaxMetaKeyBytes = 128;
constexpr std::size_t kMaxMetaValueBytes = 512;

using ascii::is_alnum;

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

void read_meta(syntax::Fields& fields, std::map<std::string, std::string>& out,
               const std::function<void(const syntax::Member&, const syntax::Path& path,
                                        const std::string& text)>& on_mesh) {
  const syntax::Value* value = fields.value("Meta");
  if (value == nullptr || value->is_null()) return;
  auto& decoder = fields.decoder();
  const std::string name = fields.written("Meta");
  const syntax::Path path = fields.path() / name;
  std::vector<const syntax::Object*> parts;
  if (!decoder.objects(*value, path, parts)) return;
  std::map<std::string_view, syntax::Position> seen;
  std::size_t pairs = 0;
  for (const syntax::Object* part : parts) {
    if ((pairs += part->size()) > kMaxMetaPairs)
      return decoder.error(value->at, path.to_string(), "expected at most 64 strings");
    for (const auto& member : *part) {
      const syntax::Path inside = path / member.key;
      auto [first, fresh] = seen.emplace(member.key, member.key_at);
      std::string text;
      if (!fresh)
        (void)decoder.given_twice(member, first->second, inside);
      else if (!is_meta_key(member.key))
        decoder.error(member.key_at, inside.to_string(),
                      "expected a key of 1 to 128 letters, digits, '-' or '_'");
      else if (!decoder.decode(member.value, inside, text))
        continue;
      else if (text.size() > kMaxMetaValueBytes)
        decoder.wrong(member.value, inside, "a string of at most 512 bytes");
      else if (out.emplace(member.key, text).second && member.key.starts_with("mesh-"))
        on_mesh(member, inside, text);
    }
  }
}

void only_default_tenancy(syntax::Fields& fields) {
  for (std::string_view key : {"Namespace", "Partition"}) {
    std::string name;
    if (fields.get(key, name) && !name.empty() && name != "default")
      fields.wrong(key, "\"default\" or nothing (there are no others)");
  }
}

}  // namespace mesh::catalog
