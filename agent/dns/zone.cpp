// SPDX-License-Identifier: Apache-2.0
#include "agent/dns/zone.h"

#include <algorithm>
#include <array>
#include <set>

#include "agent/base/ascii.h"
#include "agent/dns/limits.h"

namespace mesh::dns {
namespace {

constexpr std::string_view kDefault = "default";  // the only namespace, the only partition
constexpr std::array<std::string_view, 5> kKinds = {"service", "connect", "virtual", "node",
                                                    "addr"};
constexpr std::uint16_t kSrvPriority = 1, kSrvWeight = 1;

bool has_upper(std::string_view text) {
  return std::any_of(text.begin(), text.end(), ascii::is_upper);
}

bool is_kind(std::string_view label) {
  return std::find(kKinds.begin(), kKinds.end(), label) != kKinds.end();
}

std::string join(const std::vector<std::string>& labels, std::size_t from, std::size_t to) {
  std::string out;
  for (std::size_t i = from; i < to; ++i) {
    if (i > from) out += '.';
    out += labels[i];
  }
  return out;
}

bool wants(std::uint16_t type, const Address& address) {
  return type == kTypeAny || type == (address.is_v4() ? kTypeA : kTypeAaaa);
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// 8 digits are an IPv4 address, 32 an IPv6 one.
std::optional<Address> from_hex(std::string_view text) {
  if (text.size() != 8 && text.size() != 32) return std::nullopt;
  std::array<std::uint8_t, 16> bytes{};
  if (text.size() == 8) bytes[10] = bytes[11] = 0xff;
  const std::size_t first = 16 - text.size() / 2;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes[first + i / 2] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return Address(bytes);
}

}  // namespace

Result<std::string> check_domain(std::string_view text) {
  std::string domain = ascii::lower_case(text);
  if (!domain.empty() && domain.back() == '.') domain.pop_back();
  std::size_t labels = 1, length = 0;
  bool good = !domain.empty() && domain.size() <= 100;
  for (const char c : domain) {
    if (c == '.') {
      good = good && length > 0;
      length = 0;
      ++labels;
      continue;
    }
    ++length;
    good = good && length <= 63 && ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-');
  }
  if (!good || length == 0 || labels > 3)
    return fail("'{}' is no domain: up to 3 labels of letters, digits and '-', as in consul", text);
  return domain;
}

Zone::Zone(ZoneOptions options, std::shared_ptr<const catalog::Catalog> catalog, Usable usable)
    : options_(std::move(options)), catalog_(std::move(catalog)), usable_(std::move(usable)) {
  std::string label;
  for (const char c : options_.domain + ".") {
    if (c == '.')
      domain_.push_back(std::exchange(label, {}));
    else
      label += c;
  }
  for (const auto& [name, service] : catalog_->services())
    if (has_upper(name)) services_.emplace(ascii::lower_case(name), &service);
  for (const auto& [name, node] : catalog_->nodes())
    if (has_upper(name)) nodes_.emplace(ascii::lower_case(name), &node);
}

bool Zone::owns(const Labels& labels) const {
  return labels.size() >= domain_.size() &&
         std::equal(domain_.begin(), domain_.end(),
                    labels.end() - static_cast<std::ptrdiff_t>(domain_.size()));
}

Reply Zone::no_name() const {
  Reply reply;
  reply.rcode = Rcode::NxDomain;
  reply.soa_of = options_.domain;
  return reply;
}

Reply Zone::no_data() const {
  Reply reply;
  reply.soa_of = options_.domain;
  return reply;
}

// Takes what says where off the end: afterwards the last label is the kind, or nothing is left.
// False: somewhere that is not here.
bool Zone::strip_places(Labels& labels) const {
  const std::string datacenter = ascii::lower_case(options_.datacenter);
  while (labels.size() >= 2) {
    const std::string& last = labels.back();
    if (last != "dc" && last != "ns" && last != "ap") break;
    if (labels[labels.size() - 2] != (last == "dc" ? datacenter : kDefault)) return false;
    labels.resize(labels.size() - 2);
  }
  if (labels.empty() || is_kind(labels.back())) return true;
  if (labels.back() != datacenter) return false;
  labels.pop_back();
  return labels.empty() || is_kind(labels.back());
}

std::optional<Reply> Zone::answer(const Question& question, std::uint32_t turn) const {
  if (!owns(question.labels)) return std::nullopt;
  if (question.klass != kClassIn) {
    Reply reply;
    reply.rcode = Rcode::Refused;
    reply.authoritative = false;
    return reply;
  }
  Labels labels(question.labels.begin(),
                question.labels.end() - static_cast<std::ptrdiff_t>(domain_.size()));
  if (labels.empty()) {
    Reply reply = no_data();
    reply.soa_is_answer = question.type == kTypeSoa || question.type == kTypeAny;
    return reply;
  }
  if (!strip_places(labels)) return no_name();
  if (labels.size() <= 1) return no_data();  // there are names below it
  const std::string kind = labels.back();
  labels.pop_back();
  if (kind == "virtual") return virtual_addresses(labels, question.type);
  if (kind == "node") return node(labels, question.type);
  if (kind == "addr") return hex_address(labels, question.type);
  return endpoints(labels, question.type, turn);
}

const catalog::Service* Zone::service(const std::string& name) const {
  if (const auto* found = catalog_->find(name)) return found;
  const auto it = services_.find(name);
  return it == services_.end() ? nullptr : it->second;
}

const catalog::Node* Zone::node_named(const std::string& name) const {
  if (const auto found = catalog_->nodes().find(name); found != catalog_->nodes().end())
    return &found->second;
  const auto it = nodes_.find(name);
  return it == nodes_.end() ? nullptr : it->second;
}

Reply Zone::virtual_addresses(const Labels& name, std::uint16_t type) const {
  const auto* found = service(join(name, 0, name.size()));
  if (found == nullptr) return no_name();
  Reply reply;
  for (const auto& vip : {found->vip4, found->vip6})
    if (!vip.is_unset() && wants(type, vip)) reply.answers.push_back({"", kVirtualTtl, vip});
  return reply.answers.empty() ? no_data() : reply;
}

// Names of services may hold dots, and so may tags: the longest name of a service wins.
Zone::Found Zone::find(const Labels& name) const {
  if (name.size() == 2 && name[0].size() > 1 && name[0][0] == '_' && name[1].size() > 1 &&
      name[1][0] == '_') {
    const auto* found = service(name[0].substr(1));
    const std::string tag = name[1].substr(1);
    return {found, tag == "tcp" ? std::string() : tag};
  }
  for (std::size_t i = 0; i < name.size(); ++i)
    if (const auto* found = service(join(name, i, name.size()))) return {found, join(name, 0, i)};
  return {};
}

std::string Zone::address_name(const Address& address) const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string name;
  for (std::size_t i = address.is_v4() ? 12 : 0; i < 16; ++i) {
    name += kDigits[address.bytes()[i] >> 4];
    name += kDigits[address.bytes()[i] & 15];
  }
  return name + ".addr." + ascii::lower_case(options_.datacenter) + "." + options_.domain;
}

Reply Zone::endpoints(const Labels& name, std::uint16_t type, std::uint32_t turn) const {
  const auto [found, tag] = find(name);
  if (found == nullptr) return no_name();
  std::vector<const catalog::Instance*> all;
  bool tag_known = tag.empty();
  for (const auto& instance : found->instances) {
    const bool tagged =
        tag.empty() ||
        std::any_of(instance.details->tags.begin(), instance.details->tags.end(),
                    [&tag = tag](const std::string& t) { return ascii::lower_case(t) == tag; });
    tag_known = tag_known || tagged;
    if (tagged && usable_(*found, instance)) all.push_back(&instance);
  }
  if (!tag_known) return no_name();
  if (!all.empty())
    std::rotate(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(turn % all.size()),
                all.end());
  Reply reply;
  std::set<Address> seen;
  for (const auto* instance : all) {
    if (type == kTypeSrv) {
      const std::string target = address_name(instance->address);
      reply.answers.push_back(
          {"", kServiceTtl, Srv{kSrvPriority, kSrvWeight, instance->port, target}});
      if (seen.insert(instance->address).second)
        reply.additional.push_back({target, kServiceTtl, instance->address});
    } else if (wants(type, instance->address) && seen.insert(instance->address).second) {
      reply.answers.push_back({"", kServiceTtl, instance->address});
    }
  }
  return reply.answers.empty() ? no_data() : reply;
}

Reply Zone::node(const Labels& name, std::uint16_t type) const {
  const auto* found = node_named(join(name, 0, name.size()));
  if (found == nullptr) return no_name();
  Reply reply;
  if (wants(type, found->address)) reply.answers.push_back({"", kServiceTtl, found->address});
  return reply.answers.empty() ? no_data() : reply;
}

Reply Zone::hex_address(const Labels& name, std::uint16_t type) const {
  const auto address = name.size() == 1 ? from_hex(name[0]) : std::nullopt;
  if (!address) return no_name();
  Reply reply;
  if (wants(type, *address)) reply.answers.push_back({"", kServiceTtl, *address});
  return reply.answers.empty() ? no_data() : reply;
}

}  // namespace mesh::dns
