// SPDX-License-Identifier: Apache-2.0
// `config` and `service` on a store: what Consul's commands do to its servers. An entry is written
// only if all entries make sense together, by a transaction that does not hold if one of them has
// changed since that was found.
#pragma once

#include <memory>
#include <string>

#include "agent/catalog/commands.h"
#include "agent/store/address.h"
#include "agent/store/client.h"

namespace mesh::store {

struct EditorOptions {
  StoreAddress address;
  StoreAccess access;
  std::string prefix;
};

// Reads from the store what the command needs.
Result<std::unique_ptr<catalog::Editor>> open_editor(EditorOptions options,
                                                     catalog::CatalogCommand command);

class StoreEditor final : public catalog::Editor {
 public:
  explicit StoreEditor(std::unique_ptr<StoreClient> client);

  catalog::Edited list_entries(std::optional<config::Kind> kind) override;
  // With CreateIndex and ModifyIndex, which `config write` does not mind.
  catalog::Edited read_entry(config::Kind kind, std::string_view name) override;
  catalog::Edited write_entry(const catalog::GivenText& given, catalog::IfIndex index) override;
  catalog::Edited delete_entry(config::Kind kind, std::string_view name,
                               catalog::IfIndex index) override;

  catalog::Edited list_services() override;
  // Refused where agents would leave an instance out; README.md says when.
  catalog::Edited register_services(const catalog::GivenText& given) override;
  catalog::Edited deregister_service(const std::string& id, const std::string& service) override;

 private:
  using Errors = std::vector<syntax::ConfigError>;

  // What a change of one entry is refused for; `definition` null: it goes. Warns of what was wrong
  // before.
  Errors check_change(const std::string& key, const config::EntryDefinition* definition,
                      Errors& warnings) const;
  // Writes what `make` says, again and again until nobody was quicker.
  template <typename Make>
  tl::expected<Commit, Errors> commit(Make&& make);
  // What agents would leave out of it, with all keys of the store.
  [[nodiscard]] Errors check_registration(const std::vector<Put>& puts,
                                          const std::vector<std::string>& deletes) const;

  std::unique_ptr<StoreClient> client_;
};

}  // namespace mesh::store
