// SPDX-License-Identifier: Apache-2.0
// Filter expressions of service-resolver subsets: the language that Consul's filters are written
// in, over what is known of one instance. README.md has the selectors. Everything is checked when a
// text is parsed, so that matching cannot fail.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "agent/base/address.h"

namespace re2 {
class RE2;
}

namespace mesh::config {

inline constexpr std::size_t kMaxFilterBytes = 8192;
inline constexpr std::size_t kMaxFilterDepth = 32;   // parentheses and "not"
inline constexpr std::size_t kMaxFilterTerms = 256;  // comparisons
inline constexpr std::size_t kMaxFilterRegexes = 32;

struct FilterCheck {
  std::string_view id;
  std::string_view name;
  std::string_view status;  // passing, warning, critical
  std::string_view notes;
  std::string_view output;
  std::string_view type;
};

// What a filter may look at. Nothing in it is owned.
struct FilterSubject {
  std::string_view id;
  std::string_view service;
  Address address;
  std::uint16_t port = 0;
  std::span<const std::string> tags;
  const std::map<std::string, std::string>* meta = nullptr;
  std::uint32_t weight_passing = 1;
  std::uint32_t weight_warning = 1;
  std::string_view node;  // empty: the address is of no node of the catalog
  Address node_address;
  const std::map<std::string, std::string>* node_meta = nullptr;
  std::string_view datacenter;
  std::span<const FilterCheck> checks;
};

struct FilterError {
  std::size_t at = 0;  // bytes before it
  std::string what;
  [[nodiscard]] std::string to_string() const;  // "at character 12: ..."
};

class Filter {
 public:
  static tl::expected<std::shared_ptr<const Filter>, FilterError> parse(std::string_view text);
  ~Filter();
  Filter(const Filter&) = delete;
  Filter& operator=(const Filter&) = delete;

  // Any thread. In time linear in the lengths of the expression and of what it looks at.
  [[nodiscard]] bool matches(const FilterSubject& subject) const;

  enum class Field : std::uint8_t {
    ServiceId,
    ServiceName,
    ServiceAddress,
    ServicePort,
    ServiceTags,
    ServiceMeta,
    ServiceMetaKey,
    WeightPassing,
    WeightWarning,
    Empty,    // Service.Kind, PeerName: always ""
    Default,  // Namespace, Partition: always "default"
    Node,
    NodeAddress,
    NodeDatacenter,
    NodeMeta,
    NodeMetaKey,
    Checks,
    CheckId,
    CheckName,
    CheckStatus,
    CheckNotes,
    CheckOutput,
    CheckType,
  };
  enum class Op : std::uint8_t { Equal, In, Matches, Empty };

  struct Term {
    Field field = Field::ServiceId;
    std::string key;  // of ServiceMetaKey and NodeMetaKey
    Op op = Op::Equal;
    bool negated = false;
    std::string text;
    std::int64_t number = 0;
    std::unique_ptr<re2::RE2> regex;
  };
  struct Node {
    enum class Kind : std::uint8_t { Term, Not, And, Or };
    Kind kind = Kind::Term;
    std::size_t term = 0;
    std::vector<Node> children;
  };

 private:
  Filter(Node root, std::vector<Term> terms);
  [[nodiscard]] bool evaluate(const Node& node, const FilterSubject& subject) const;

  Node root_;
  std::vector<Term> terms_;
};

}  // namespace mesh::config
