// SPDX-License-Identifier: Apache-2.0
// Changes a configuration directory the way Consul's commands change its servers: an entry or an
// instance a file, written as a whole, and only if the directory as a whole would be accepted.
// Files of people are left alone where they hold more than the one thing. Blocking.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"
#include "agent/catalog/editor.h"
#include "agent/catalog/file_reader.h"

namespace mesh::catalog {

class DirectoryEditor final : public Editor {
 public:
  // Waits for other editors of the directory. One that only reads need not.
  static Result<DirectoryEditor> open(std::string directory, bool for_writing);

  Edited list_entries(std::optional<config::Kind> kind) override;
  Edited read_entry(config::Kind kind, std::string_view name) override;
  Edited write_entry(const GivenText& given, IfIndex index) override;
  Edited delete_entry(config::Kind kind, std::string_view name, IfIndex index) override;
  Edited list_services() override;
  Edited register_services(const GivenText& given) override;
  Edited deregister_service(const std::string& id, const std::string& service) override;

 private:
  struct File {
    std::string path;
    Definitions definitions;
    std::vector<config::EntryDefinition> entries;
    [[nodiscard]] std::size_t size() const {
      return definitions.services.size() + definitions.nodes.size() + entries.size();
    }
  };
  // New content of one path; an empty text is no file at all.
  struct Change {
    std::string path;
    std::string text;
  };

  DirectoryEditor(std::string directory, UniqueFd lock)
      : directory_(std::move(directory)), lock_(std::move(lock)) {}

  [[nodiscard]] std::vector<File> scan() const;
  // Checks the directory as it would be, then makes it so.
  std::vector<syntax::ConfigError> apply(const std::vector<Change>& changes) const;
  [[nodiscard]] Status write(const Change& change) const;
  // The file that holds what is wanted and nothing else; none if it is nowhere.
  template <typename Holds>
  tl::expected<std::optional<std::string>, std::vector<syntax::ConfigError>> only_in(
      const std::vector<File>& files, const std::string& what, Holds holds) const;

  std::string directory_;
  UniqueFd lock_;
};

}  // namespace mesh::catalog
