// SPDX-License-Identifier: Apache-2.0
// What `config` and `service` do to a configuration, wherever it is kept. Also what they share: the
// texts that they are given, read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/result.h"
#include "agent/config/entry_reader.h"
#include "agent/syntax/errors.h"
#include "agent/syntax/read.h"

namespace mesh::catalog {

// What to tell the user.
using Edited = tl::expected<std::string, std::vector<syntax::ConfigError>>;

// A text that a command was given.
struct GivenText {
  std::string name;  // path, or "-"
  std::string text;
};

// Change the entry only if its ModifyIndex is this; 0: only if there is none.
using IfIndex = std::optional<std::int64_t>;

class Editor {
 public:
  Editor() = default;
  Editor(Editor&&) = default;
  Editor& operator=(Editor&&) = default;
  virtual ~Editor() = default;

  virtual Edited list_entries(std::optional<config::Kind> kind) = 0;        // a line each
  virtual Edited read_entry(config::Kind kind, std::string_view name) = 0;  // as JSON
  virtual Edited write_entry(const GivenText& given, IfIndex index) = 0;
  // That there is no such entry is no error, unless there is an index.
  virtual Edited delete_entry(config::Kind kind, std::string_view name, IfIndex index) = 0;

  virtual Edited list_services() = 0;
  virtual Edited register_services(const GivenText& given) = 0;
  // `service` may be empty: of whichever service the instance is.
  virtual Edited deregister_service(const std::string& id, const std::string& service) = 0;
};

struct GivenEntry {
  config::EntryDefinition definition;
  syntax::Format format = syntax::Format::Json;
  std::vector<syntax::ConfigError> warnings;
};
// Exactly one entry, or what is wrong with the text.
tl::expected<GivenEntry, std::vector<syntax::ConfigError>> read_given_entry(const GivenText& given);

struct GivenService {
  std::string name;
  std::string id;
  std::string json;  // {"service": ...}, with a line's end
};
struct GivenServices {
  std::vector<GivenService> services;  // at least one
  std::vector<syntax::ConfigError> warnings;
};
// Services alone: neither nodes nor sidecars can be registered.
tl::expected<GivenServices, std::vector<syntax::ConfigError>> read_given_services(
    const GivenText& given);

// Does not throw, whatever bytes escapes have made. Without line breaks: indent -1.
std::string json_of(const syntax::Value& value, int indent);
// "\nwarning: ..." for each.
std::string text_of_warnings(const std::vector<syntax::ConfigError>& warnings);
std::string label(config::Kind kind, std::string_view name);  // kind/name

}  // namespace mesh::catalog
