// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/node_definition.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "agent/catalog/definition_reader.h"

namespace mesh::catalog {
namespace {

constexpr std::size_t kMaxCidrs = 64;  // of one node

// Where no workload can be.
bool is_workload_range(const Cidr& cidr) {
  static const std::array kNever{*Cidr::parse("0.0.0.0/8"),   *Cidr::parse("127.0.0.0/8"),
                                 *Cidr::parse("224.0.0.0/3"), *Cidr::parse("::/127"),
                                 *Cidr::parse("fe80::/10"),   *Cidr::parse("ff00::/8")};
  return std::none_of(kNever.begin(), kNever.end(),
                      [&](const Cidr& never) { return cidr.overlaps(never); });
}

void address(syntax::Fields& f, NodeDefinition& out) {
  std::string text;
  if (!f.given("Address"))
    return f.error("'address' is required: the IP address of the node itself");
  if (!f.get("Address", text)) return;
  auto parsed = Address::parse(text);
  if (!parsed || !is_unicast(*parsed))
    return f.wrong("Address",
                   "the IP address of a node (not loopback, unspecified, multicast or in "
                   "240.0.0.0/4; names are not resolved)");
  out.node.address = *parsed;
  out.address_at = f.at("Address");
}

void cidrs(syntax::Fields& f, NodeDefinition& out) {
  if (!f.given("CIDRs"))
    return f.error("'cidrs' is required: the address ranges of the node's pods");
  std::vector<syntax::Located<std::string>> texts;
  const bool good = f.get("CIDRs", texts);
  if (good && (texts.empty() || texts.size() > kMaxCidrs))
    return f.wrong("CIDRs", "an array of 1 to 64 address ranges");
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto& [text, at] = texts[i];
    const auto tell = [&, at = at](std::string what) {
      f.decoder().error(at, fmt::format("{}[{}]", f.path("CIDRs"), i), std::move(what));
    };
    if (at.line == 0 || !good) continue;
    auto cidr = Cidr::parse(syntax::printable(text));
    if (!cidr) {
      tell(std::move(cidr.error().what));
    } else if (!is_workload_range(*cidr)) {
      tell(
          fmt::format("expected a range of workload addresses (without loopback, link-local, "
                      "multicast, unspecified or 240.0.0.0/4), got \"{}\"",
                      syntax::printable(text)));
    } else {
      out.node.cidrs.push_back(*cidr);
      out.cidrs_at.push_back(at);
    }
  }
}

}  // namespace

void decode_fields(syntax::Fields& f, NodeDefinition& out) {
  out.key = f.path().to_string();
  out.at = out.name_at = out.address_at = f.at();
  if (!f.given("Name")) {
    f.error("'name' is required");
  } else if (f.get("Name", out.node.name)) {
    if (!is_name(out.node.name)) f.wrong("Name", kNameRule);
    out.name_at = f.at("Name");
  }
  address(f, out);
  cidrs(f, out);
  read_meta(
      f, out.node.meta,
      [&](const syntax::Member& member, const syntax::Path& path, const std::string& /*text*/) {
        f.decoder().error(member.key_at, path.to_string(),
                          "unknown switch: there is none for nodes");
      });
}

}  // namespace mesh::catalog
