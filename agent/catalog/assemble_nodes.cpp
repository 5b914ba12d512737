// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "agent/base/ascii.h"
#include "agent/catalog/assemble.h"

namespace mesh::catalog {
namespace {

// One CIDR of one definition.
struct Range {
  Cidr cidr;
  const NodeDefinition* node;
  std::size_t index;
  std::size_t order;  // of reading
};

class NodeRules {
 public:
  NodeRules(const Definitions& definitions, syntax::ErrorList& errors)
      : definitions_(definitions), errors_(errors) {}

  // False when a limit was hit: there is no use in going on.
  bool check(const NodeDefinition& d) {
    std::string lower = ascii::lower_case(d.node.name);
    auto [same, fresh] = by_name_.emplace(std::move(lower), &d);
    if (!fresh)
      error(d, d.name_at, ".name",
            fmt::format("\"{}\" {} {}", d.node.name,
                        d.node.name == same->second->node.name ? "is defined already"
                                                               : "differs only in case from the "
                                                                 "node",
                        where(*same->second, same->second->name_at)));
    auto [owner, new_address] = by_address_.emplace(d.node.address, &d);
    if (!new_address)
      error(
          d, d.address_at, ".address",
          fmt::format("{} is the address of node \"{}\" {}", d.node.address.to_string(),
                      owner->second->node.name, where(*owner->second, owner->second->address_at)));
    for (std::size_t i = 0; i < d.node.cidrs.size(); ++i)
      ranges_.push_back({d.node.cidrs[i], &d, i, ranges_.size()});
    if (by_name_.size() > kMaxNodes) {
      error(d, d.at, "", fmt::format("more than {} nodes", kMaxNodes));
      return false;
    }
    if (ranges_.size() > kMaxNodeCidrs) {
      error(d, d.at, "", fmt::format("more than {} address ranges of nodes", kMaxNodeCidrs));
      return false;
    }
    return true;
  }

  // Prefixes contain each other or have nothing in common: in the order of their first addresses,
  // whatever overlaps any before it overlaps the last that nothing before contains.
  void check_overlaps() {
    std::sort(ranges_.begin(), ranges_.end(),
              [](const Range& a, const Range& b) { return a.cidr < b.cidr; });
    const Range* cover = nullptr;
    for (const auto& range : ranges_) {
      if (cover == nullptr || !cover->cidr.overlaps(range.cidr)) {
        cover = &range;
        continue;
      }
      const bool in_order = cover->order < range.order;
      const Range& first = in_order ? *cover : range;
      const Range& second = in_order ? range : *cover;
      error(*second.node, second,
            fmt::format("{} overlaps {} of node \"{}\" {}", second.cidr.to_string(),
                        first.cidr.to_string(), first.node->node.name,
                        where(*first.node, first.node->cidrs_at[first.index])));
    }
  }

  void check_against(const OwnNode& own) {
    const auto is_own = [&](const Cidr& cidr) {
      return std::find_if(own.cidrs.begin(), own.cidrs.end(),
                          [&](const Cidr& o) { return o.overlaps(cidr); });
    };
    for (const auto& [name, d] : by_name_) {
      if (d->node.name != own.name) continue;
      if (std::none_of(d->node.cidrs.begin(), d->node.cidrs.end(),
                       [&](const Cidr& c) { return is_own(c) != own.cidrs.end(); }))
        error(*d, d->cidrs_at.front(), ".cidrs",
              fmt::format("\"{}\" is this node (--node-name), but none of its ranges overlaps its "
                          "--node-cidr {}",
                          own.name, text_of(own.cidrs)));
    }
    for (const auto& range : ranges_) {
      const auto mine = is_own(range.cidr);
      if (range.node->node.name != own.name && mine != own.cidrs.end())
        error(*range.node, range,
              fmt::format("{} overlaps --node-cidr {} of this node, which is \"{}\" (--node-name)",
                          range.cidr.to_string(), mine->to_string(), own.name));
      if (own.vip_cidr6 && own.vip_cidr6->overlaps(range.cidr))
        error(*range.node, range,
              fmt::format("{} overlaps {}, where service VIPs come from", range.cidr.to_string(),
                          own.vip_cidr6->to_string()));
    }
  }

 private:
  static std::string text_of(const std::vector<Cidr>& cidrs) {
    std::string text;
    for (const auto& cidr : cidrs) text += (text.empty() ? "" : ", ") + cidr.to_string();
    return text;
  }

  void error(const NodeDefinition& d, syntax::Position at, std::string_view key, std::string what) {
    errors_.add({definitions_.files[d.file], at, fmt::format("{}{}", d.key, key), std::move(what)});
  }
  void error(const NodeDefinition& d, const Range& range, std::string what) {
    error(d, d.cidrs_at[range.index], fmt::format(".cidrs[{}]", range.index), std::move(what));
  }

  [[nodiscard]] std::string where(const NodeDefinition& d, syntax::Position at) const {
    return fmt::format("at {}:{}:{}", definitions_.files[d.file], at.line, at.column);
  }

  const Definitions& definitions_;
  syntax::ErrorList& errors_;
  std::unordered_map<std::string, const NodeDefinition*> by_name_;  // lower case
  std::unordered_map<Address, const NodeDefinition*> by_address_;
  std::vector<Range> ranges_;
};

}  // namespace

Catalog::Nodes group_nodes(const Definitions& definitions, const OwnNode* own,
                           syntax::ErrorList& errors) {
  NodeRules rules(definitions, errors);
  bool complete = true;
  for (const auto& definition : definitions.nodes)
    if (complete) complete = rules.check(definition);
  if (complete) {
    rules.check_overlaps();
    if (own != nullptr) rules.check_against(*own);
  }
  Catalog::Nodes nodes;
  if (!errors.empty()) return nodes;
  for (const auto& definition : definitions.nodes) {
    Node node = definition.node;
    std::sort(node.cidrs.begin(), node.cidrs.end());
    nodes.emplace(node.name, std::move(node));
  }
  return nodes;
}

}  // namespace mesh::catalog
