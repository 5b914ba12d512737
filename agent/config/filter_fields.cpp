// SPDX-License-Identifier: Apache-2.0
#include "agent/config/filter_fields.h"

#include <algorithm>
#include <array>

namespace mesh::config {
namespace {

using Field = Filter::Field;
using Op = Filter::Op;

struct Entry {
  std::array<std::string_view, 3> path;
  Field field;
  FieldType type;
};

constexpr std::array kFields{
    Entry{{"Service", "ID"}, Field::ServiceId, FieldType::Text},
    Entry{{"Service", "Service"}, Field::ServiceName, FieldType::Text},
    Entry{{"Service", "Address"}, Field::ServiceAddress, FieldType::Text},
    Entry{{"Service", "Port"}, Field::ServicePort, FieldType::Number},
    Entry{{"Service", "Tags"}, Field::ServiceTags, FieldType::List},
    Entry{{"Service", "Meta"}, Field::ServiceMeta, FieldType::Map},
    Entry{{"Service", "Weights", "Passing"}, Field::WeightPassing, FieldType::Number},
    Entry{{"Service", "Weights", "Warning"}, Field::WeightWarning, FieldType::Number},
    Entry{{"Service", "Kind"}, Field::Empty, FieldType::Text},
    Entry{{"Service", "Namespace"}, Field::Default, FieldType::Text},
    Entry{{"Service", "Partition"}, Field::Default, FieldType::Text},
    Entry{{"Service", "PeerName"}, Field::Empty, FieldType::Text},
    Entry{{"Node", "Node"}, Field::Node, FieldType::Text},
    Entry{{"Node", "Address"}, Field::NodeAddress, FieldType::Text},
    Entry{{"Node", "Datacenter"}, Field::NodeDatacenter, FieldType::Text},
    Entry{{"Node", "Meta"}, Field::NodeMeta, FieldType::Map},
    Entry{{"Node", "Partition"}, Field::Default, FieldType::Text},
    Entry{{"Node", "PeerName"}, Field::Empty, FieldType::Text},
    Entry{{"Checks"}, Field::Checks, FieldType::Structs},
    Entry{{"Checks", "CheckID"}, Field::CheckId, FieldType::Text},
    Entry{{"Checks", "Name"}, Field::CheckName, FieldType::Text},
    Entry{{"Checks", "Status"}, Field::CheckStatus, FieldType::Text},
    Entry{{"Checks", "Notes"}, Field::CheckNotes, FieldType::Text},
    Entry{{"Checks", "Output"}, Field::CheckOutput, FieldType::Text},
    Entry{{"Checks", "Type"}, Field::CheckType, FieldType::Text},
};

std::size_t length(const Entry& entry) {
  return static_cast<std::size_t>(
      std::count_if(entry.path.begin(), entry.path.end(), [](auto part) { return !part.empty(); }));
}

}  // namespace

std::optional<ResolvedField> resolve_field(std::span<const std::string> path) {
  for (const auto& entry : kFields) {
    const std::size_t parts = length(entry);
    if (path.size() < parts || !std::equal(entry.path.begin(), entry.path.begin() + parts,
                                           path.begin(), path.begin() + parts))
      continue;
    if (path.size() == parts) return ResolvedField{entry.field, entry.type, {}};
    if (entry.type == FieldType::Map && path.size() == parts + 1)
      return ResolvedField{
          entry.field == Field::ServiceMeta ? Field::ServiceMetaKey : Field::NodeMetaKey,
          FieldType::Text, path[parts]};
  }
  return std::nullopt;
}

bool supports(FieldType type, Op op) {
  switch (type) {
    case FieldType::Text:
      return true;
    case FieldType::Number:
      return op == Op::Equal;
    case FieldType::List:
    case FieldType::Map:
      return op == Op::In || op == Op::Empty;
    case FieldType::Structs:
      return op == Op::Empty;
  }
  return false;
}

std::string_view to_string(FieldType type) {
  switch (type) {
    case FieldType::Text:
      return "a text";
    case FieldType::Number:
      return "a number";
    case FieldType::List:
      return "a list";
    case FieldType::Map:
      return "a map";
    case FieldType::Structs:
      return "a list of objects";
  }
  return "a text";
}

}  // namespace mesh::config
