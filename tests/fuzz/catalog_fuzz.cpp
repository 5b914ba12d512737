// SPDX-License-Identifier: Apache-2.0
// The catalog reader against arbitrary bytes: no crash, no unbounded message, and every position
// points at the token that it claims to.
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "agent/catalog/assemble.h"
#include "agent/catalog/service_definition.h"
#include "agent/syntax/json.h"
#include "tests/fuzz/lines.h"

namespace {

using namespace mesh::catalog;
using namespace mesh::syntax;

using mesh::fuzz::Lines;
using mesh::fuzz::require;

void check(const Value& value, const Lines& lines) {
  char first = lines.at(value.at);
  if (const auto* array = value.get<Array>()) {
    require(first == '[', "array");
    for (const auto& element : *array) check(element, lines);
  } else if (const auto* object = value.get<Object>()) {
    require(first == '{', "object");
    for (const auto& member : *object) {
      require(lines.at(member.key_at) == '"', "key");
      check(member.value, lines);
    }
  } else if (value.get<std::string>() != nullptr) {
    require(first == '"', "string");
  } else if (const auto* flag = value.get<bool>()) {
    require(first == (*flag ? 't' : 'f'), "bool");
  } else if (value.get<std::monostate>() != nullptr) {
    require(first == 'n', "null");
  } else {
    require(first == '-' || (first >= '0' && first <= '9'), "number");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  std::string_view body = text.starts_with("\xef\xbb\xbf") ? text.substr(3) : text;
  Lines lines(body);
  auto tree = read_json(text);
  if (tree) {
    require(nlohmann::json::accept(body), "accepted what is not JSON");
    check(*tree, lines);
  } else if (tree.error().at.line != 0) {
    (void)lines.at(tree.error().at);
  }

  Definitions definitions;
  ErrorList errors;
  read_service_definitions("a.json", text, definitions, errors);
  // Twice: as soon as there is one definition, rules between definitions are at work.
  read_service_definitions("b.json", text, definitions, errors);
  bool any = !definitions.services.empty() || !definitions.nodes.empty();
  (void)group_nodes(definitions, nullptr, errors);
  auto services = group_services(std::move(definitions), errors);
  require(!any || !errors.empty(), "the same ids twice were accepted");
  auto list = errors.take();
  require(list.size() <= ErrorList::kMaxErrors + 1, "number of errors");
  for (const auto& error : list) {
    require(error.to_string().size() < 2048, "length of a message");
    if (error.at.line != 0) (void)lines.at(error.at);
  }

  Definitions once;
  ErrorList none;
  read_service_definitions("a.json", text, once, none);
  auto nodes = group_nodes(once, nullptr, none);
  services = group_services(std::move(once), none);
  if (!none.empty()) return 0;
  auto vips = VipAllocator::with_default_prefix();
  auto catalog = make_catalog(std::move(services), std::move(nodes), vips);
  for (const auto& [name, node] : catalog->nodes()) {
    require(is_service_name(name) && !node.cidrs.empty(), "node");
    for (const auto& cidr : node.cidrs)
      require(catalog->node_of(cidr.base()) == &node, "node lookup");
  }
  for (const auto& [name, service] : catalog->services()) {
    require(is_service_name(name), "name");
    require(VipAllocator::is_assignable(service.vip4), "VIP");
    for (const auto& instance : service.instances)
      require(catalog->service_at(instance.endpoint()) == &service, "lookup");
  }
  return 0;
}
