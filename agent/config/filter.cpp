// SPDX-License-Identifier: Apache-2.0
#include "agent/config/filter.h"

#include <fmt/format.h>
#include <re2/re2.h>

#include <algorithm>
#include <utility>

#include "agent/config/filter_parser.h"

namespace mesh::config {
namespace {

using Term = Filter::Term;
using Field = Filter::Field;
using Op = Filter::Op;

// A key that a map does not have is equal to nothing, in nothing and empty.
bool holds(const Term& term, const std::string_view* text) {
  bool result = false;
  switch (term.op) {
    case Op::Equal:
      result = text != nullptr && *text == term.text;
      break;
    case Op::In:
      result = text != nullptr && text->find(term.text) != std::string_view::npos;
      break;
    case Op::Matches:
      result = text != nullptr &&
               re2::RE2::PartialMatch(re2::StringPiece(text->data(), text->size()), *term.regex);
      break;
    case Op::Empty:
      result = text == nullptr || text->empty();
      break;
  }
  return result != term.negated;
}

bool holds(const Term& term, std::string_view text) { return holds(term, &text); }

using Map = std::map<std::string, std::string>;

bool holds_of_map(const Term& term, const Map* map) {
  const bool result = term.op == Op::Empty ? map == nullptr || map->empty()
                                           : map != nullptr && map->find(term.text) != map->end();
  return result != term.negated;
}

bool holds_of_value(const Term& term, const Map* map) {
  if (map != nullptr)
    if (auto it = map->find(term.key); it != map->end())
      return holds(term, std::string_view(it->second));
  return holds(term, static_cast<const std::string_view*>(nullptr));
}

bool holds_of_list(const Term& term, std::span<const std::string> list) {
  const bool result = term.op == Op::Empty
                          ? list.empty()
                          : std::find(list.begin(), list.end(), term.text) != list.end();
  return result != term.negated;
}

// As in Consul, a comparison with a field of a list's elements holds if it does for one of them.
bool holds_of_any(const Term& term, std::span<const FilterCheck> checks,
                  std::string_view FilterCheck::*member) {
  return std::any_of(checks.begin(), checks.end(),
                     [&](const FilterCheck& check) { return holds(term, check.*member); });
}

bool holds(const Term& term, std::int64_t number) {
  return (number == term.number) != term.negated;
}

std::string text_of(const Address& address) {
  return address.is_unset() ? std::string() : address.to_string();
}

bool holds(const Term& term, const FilterSubject& s) {
  switch (term.field) {
    case Field::ServiceId:
      return holds(term, s.id);
    case Field::ServiceName:
      return holds(term, s.service);
    case Field::ServiceAddress:
      return holds(term, std::string_view(text_of(s.address)));
    case Field::ServicePort:
      return holds(term, std::int64_t{s.port});
    case Field::ServiceTags:
      return holds_of_list(term, s.tags);
    case Field::ServiceMeta:
      return holds_of_map(term, s.meta);
    case Field::ServiceMetaKey:
      return holds_of_value(term, s.meta);
    case Field::WeightPassing:
      return holds(term, std::int64_t{s.weight_passing});
    case Field::WeightWarning:
      return holds(term, std::int64_t{s.weight_warning});
    case Field::Empty:
      return holds(term, std::string_view(""));
    case Field::Default:
      return holds(term, std::string_view("default"));
    case Field::Node:
      return holds(term, s.node);
    case Field::NodeAddress:
      return holds(term, std::string_view(text_of(s.node_address)));
    case Field::NodeDatacenter:
      return holds(term, s.datacenter);
    case Field::NodeMeta:
      return holds_of_map(term, s.node_meta);
    case Field::NodeMetaKey:
      return holds_of_value(term, s.node_meta);
    case Field::Checks:
      return s.checks.empty() != term.negated;
    case Field::CheckId:
      return holds_of_any(term, s.checks, &FilterCheck::id);
    case Field::CheckName:
      return holds_of_any(term, s.checks, &FilterCheck::name);
    case Field::CheckStatus:
      return holds_of_any(term, s.checks, &FilterCheck::status);
    case Field::CheckNotes:
      return holds_of_any(term, s.checks, &FilterCheck::notes);
    case Field::CheckOutput:
      return holds_of_any(term, s.checks, &FilterCheck::output);
    case Field::CheckType:
      return holds_of_any(term, s.checks, &FilterCheck::type);
  }
  return false;
}

}  // namespace

std::string FilterError::to_string() const {
  return fmt::format("at character {}: {}", at + 1, what);
}

Filter::Filter(Node root, std::vector<Term> terms)
    : root_(std::move(root)), terms_(std::move(terms)) {}

Filter::~Filter() = default;

tl::expected<std::shared_ptr<const Filter>, FilterError> Filter::parse(std::string_view text) {
  auto parsed = parse_filter(text);
  if (!parsed) return tl::unexpected(std::move(parsed).error());
  return std::shared_ptr<const Filter>(
      new Filter(std::move(parsed->first), std::move(parsed->second)));
}

bool Filter::matches(const FilterSubject& subject) const { return evaluate(root_, subject); }

bool Filter::evaluate(const Node& node, const FilterSubject& subject) const {
  const auto each = [&](const Node& child) { return evaluate(child, subject); };
  switch (node.kind) {
    case Node::Kind::Term:
      return holds(terms_[node.term], subject);
    case Node::Kind::Not:
      return !evaluate(node.children.front(), subject);
    case Node::Kind::And:
      return std::all_of(node.children.begin(), node.children.end(), each);
    case Node::Kind::Or:
      return std::any_of(node.children.begin(), node.children.end(), each);
  }
  return false;
}

}  // namespace mesh::config
