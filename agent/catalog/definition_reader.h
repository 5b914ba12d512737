// SPDX-License-Identifier: Apache-2.0
// What the readers of definitions share: how errors are told, and the rules for text and addresses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "agent/base/address.h"
#include "agent/syntax/errors.h"
#include "agent/syntax/value.h"

namespace mesh::catalog {

// [a-zA-Z0-9][-_.a-zA-Z0-9]*, 1 to 63 characters.
bool is_name(std::string_view name);
// A control character of ASCII is in it.
bool has_control(std::string_view text);
// Of a workload or a node: not loopback, unspecified, multicast or in 240.0.0.0/4.
bool is_unicast(const Address& address);

// Reads values of one file. Counts the errors it has told, so that a definition knows whether any
// is its own.
class DefinitionReader {
 protected:
  DefinitionReader(std::string file, syntax::ErrorList& errors)
      : file_name_(std::move(file)), errors_(errors) {}

  void error(syntax::Position at, std::string key, std::string what);
  void given_twice(const syntax::Member& member, syntax::Position first, std::string key);
  void wrong_type(const syntax::Value& value, std::string key, std::string_view expected);
  // The object of strings that Consul calls meta. `on_mesh` is called for keys that begin with
  // "mesh-", before they are kept.
  std::map<std::string, std::string> meta(
      const syntax::Value& value, const std::string& path,
      const std::function<void(const syntax::Member&, const std::string& key)>& on_mesh);
  [[nodiscard]] std::size_t found() const { return found_; }

 private:
  std::string file_name_;
  syntax::ErrorList& errors_;
  std::size_t found_ = 0;
};

}  // namespace mesh::catalog
