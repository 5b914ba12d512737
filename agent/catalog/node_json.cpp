// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/node_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "agent/catalog/definition_reader.h"

namespace mesh::catalog {
namespace {

constexpr std::size_t kMaxCidrs = 64;  // of one node

enum class Key { Name, Address, Cidrs, Meta };
constexpr std::size_t kKeys = 4;

struct Spelling {
  std::string_view text;
  Key key;
};

constexpr std::array kNodeKeys{
    Spelling{"name", Key::Name},       Spelling{"Name", Key::Name},
    Spelling{"address", Key::Address}, Spelling{"Address", Key::Address},
    Spelling{"cidrs", Key::Cidrs},     Spelling{"Cidrs", Key::Cidrs},
    Spelling{"CIDRs", Key::Cidrs},     Spelling{"meta", Key::Meta},
    Spelling{"Meta", Key::Meta},
};

// Where no workload can be.
bool is_workload_range(const Cidr& cidr) {
  static const std::array kNever{*Cidr::parse("0.0.0.0/8"),   *Cidr::parse("127.0.0.0/8"),
                                 *Cidr::parse("224.0.0.0/3"), *Cidr::parse("::/127"),
                                 *Cidr::parse("fe80::/10"),   *Cidr::parse("ff00::/8")};
  return std::none_of(kNever.begin(), kNever.end(),
                      [&](const Cidr& never) { return cidr.overlaps(never); });
}

class Decoder : DefinitionReader {
 public:
  Decoder(const std::string& file_name, syntax::ErrorList& errors)
      : DefinitionReader(file_name, errors) {}

  // False if anything is wrong with it.
  bool read(const syntax::Value& value, const std::string& path, NodeDefinition& out) {
    const auto* object = value.get<syntax::Object>();
    if (object == nullptr) {
      wrong_type(value, path, "a node definition (an object)");
      return false;
    }
    out.key = path;
    out.at = out.name_at = out.address_at = value.at;
    std::array<const syntax::Member*, kKeys> seen{};
    for (const auto& member : *object) {
      std::string key = fmt::format("{}.{}", path, syntax::printable(member.key));
      auto spelling = std::find_if(kNodeKeys.begin(), kNodeKeys.end(),
                                   [&](const Spelling& s) { return s.text == member.key; });
      if (spelling == kNodeKeys.end()) {
        error(member.key_at, std::move(key), "unknown key: expected name, address, cidrs or meta");
        continue;
      }
      const syntax::Member*& slot = seen[static_cast<std::size_t>(spelling->key)];
      if (slot != nullptr)
        given_twice(member, slot->key_at, std::move(key));
      else
        field(spelling->key, *(slot = &member), key, out);
    }
    const auto required = [&](Key key, const char* what) {
      if (seen[static_cast<std::size_t>(key)] == nullptr) error(value.at, path, what);
    };
    required(Key::Name, "'name' is required");
    required(Key::Address, "'address' is required: the IP address of the node itself");
    required(Key::Cidrs, "'cidrs' is required: the address ranges of the node's pods");
    return found() == 0;
  }

 private:
  void field(Key key, const syntax::Member& member, const std::string& path, NodeDefinition& out) {
    const syntax::Value& value = member.value;
    switch (key) {
      case Key::Name:
        return name(value, path, out);
      case Key::Address:
        return address(value, path, out);
      case Key::Cidrs:
        return cidrs(value, path, out);
      case Key::Meta:
        out.node.meta =
            meta(value, path, [&](const syntax::Member& unknown, const std::string& at) {
              error(unknown.key_at, at, "unknown switch: there is none for nodes");
            });
    }
  }

  void name(const syntax::Value& value, const std::string& path, NodeDefinition& out) {
    const auto* text = value.get<std::string>();
    if (text == nullptr || !is_name(*text)) {
      wrong_type(
          value, path,
          "a name of 1 to 63 characters, a letter or digit first, then letters, digits, '-', "
          "'_' or '.'");
      return;
    }
    out.node.name = *text;
    out.name_at = value.at;
  }

  void address(const syntax::Value& value, const std::string& path, NodeDefinition& out) {
    const auto* text = value.get<std::string>();
    auto parsed = text != nullptr ? Address::parse(*text) : Result<Address>(fail("not a string"));
    if (!parsed || !is_unicast(*parsed)) {
      wrong_type(value, path,
                 "the IP address of a node (not loopback, unspecified, multicast or in "
                 "240.0.0.0/4; names are not resolved)");
      return;
    }
    out.node.address = *parsed;
    out.address_at = value.at;
  }

  void cidrs(const syntax::Value& value, const std::string& path, NodeDefinition& out) {
    const auto* array = value.get<syntax::Array>();
    if (array == nullptr || array->empty() || array->size() > kMaxCidrs) {
      wrong_type(value, path, "an array of 1 to 64 address ranges");
      return;
    }
    for (std::size_t i = 0; i < array->size(); ++i) {
      const syntax::Value& element = (*array)[i];
      std::string key = fmt::format("{}[{}]", path, i);
      const auto* text = element.get<std::string>();
      if (text == nullptr) {
        wrong_type(element, std::move(key), "an address range, as in \"10.0.1.0/24\"");
        continue;
      }
      auto cidr = Cidr::parse(syntax::printable(*text));
      if (!cidr) {
        error(element.at, std::move(key), std::move(cidr.error().what));
        continue;
      }
      if (!is_workload_range(*cidr)) {
        wrong_type(element, std::move(key),
                   "a range of workload addresses (without loopback, link-local, multicast, "
                   "unspecified or 240.0.0.0/4)");
        continue;
      }
      out.node.cidrs.push_back(*cidr);
      out.cidrs_at.push_back(element.at);
    }
  }
};

}  // namespace

void read_node_definition(const syntax::Value& value, const std::string& path, std::uint32_t file,
                          const std::string& file_name, std::vector<NodeDefinition>& out,
                          syntax::ErrorList& errors) {
  NodeDefinition definition;
  definition.file = file;
  if (Decoder(file_name, errors).read(value, path, definition))
    out.push_back(std::move(definition));
}

}  // namespace mesh::catalog
