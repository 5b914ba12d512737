// SPDX-License-Identifier: Apache-2.0
#include "agent/store/editor.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "agent/store/config_values.h"
#include "agent/store/editor_check.h"

namespace mesh::store {
namespace {

using catalog::Edited;
using catalog::GivenText;
using catalog::IfIndex;
using syntax::ConfigError;
using Kind = KeyName::Kind;

constexpr unsigned kAttempts = 20;  // each after a change by somebody else
constexpr std::size_t kMaxInstancesAtOnce = 60;

tl::unexpected<std::vector<ConfigError>> refuse(const std::string& what) {
  return tl::unexpected(std::vector<ConfigError>{{"store", {}, {}, what}});
}

Put note_of_change(const std::string& label) {
  // For people; what matters is that the key changes.
  return {std::string(kConfigChangeKey), nlohmann::json{{"changed", label}}.dump(), 0};
}

}  // namespace

Result<std::unique_ptr<catalog::Editor>> open_editor(EditorOptions options,
                                                     catalog::CatalogCommand command) {
  using Command = catalog::CatalogCommand;
  EtcdOptions etcd;
  etcd.address = std::move(options.address);
  etcd.access = std::move(options.access);
  etcd.prefix = std::move(options.prefix);
  const bool entries = command == Command::ConfigRead || command == Command::ConfigList;
  auto client = StoreClient::open(std::move(etcd), entries                           ? "config/"
                                                   : command == Command::ServiceList ? "catalog/"
                                                                                     : "");
  if (!client) return context(std::move(client).error(), "--store");
  return std::make_unique<StoreEditor>(std::move(*client));
}

StoreEditor::StoreEditor(std::unique_ptr<StoreClient> client) : client_(std::move(client)) {}

Edited StoreEditor::list_entries(std::optional<config::Kind> kind) {
  std::vector<std::string> lines;
  for (const auto& [key, kv] : client_->entries()) {
    const auto name = parse_key(key);
    if (name.kind != Kind::Config) continue;
    const auto slash = name.name.find('/');
    const auto own = config::kind_of(name.name.substr(0, slash));
    if (!own || (kind && *own != *kind)) continue;
    lines.push_back(key_text(kind ? name.name.substr(slash + 1) : name.name));
  }
  return fmt::format("{}", fmt::join(lines, "\n"));
}

Edited StoreEditor::read_entry(config::Kind kind, std::string_view name) {
  const auto label = catalog::label(kind, name);
  const auto* kv = client_->find(config_key(label));
  if (kv == nullptr) return refuse(fmt::format("there is no {}", label));
  if (kv->too_large) return refuse(fmt::format("{}: the value is too large", label));
  const auto documents = syntax::read_documents(syntax::Format::Json, kv->value);
  if (!documents || documents->size() != 1 || documents->front().get<syntax::Object>() == nullptr)
    return refuse(fmt::format("{}: what is there is no config entry", label));
  auto json = nlohmann::ordered_json::parse(catalog::json_of(documents->front(), -1));
  if (auto metadata = json.find("metadata"); json.contains("apiVersion")) {
    // The form of custom resources has a place of its own for it.
    if (metadata != json.end()) (*metadata)["resourceVersion"] = std::to_string(kv->modified);
  } else {
    json["CreateIndex"] = kv->created;
    json["ModifyIndex"] = kv->modified;
  }
  return json.dump(4, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

template <typename Make>
tl::expected<Commit, StoreEditor::Errors> StoreEditor::commit(Make&& make) {
  for (unsigned attempt = 0; attempt < kAttempts; ++attempt) {
    tl::expected<Transaction, Errors> transaction = make();
    if (!transaction) return tl::unexpected(std::move(transaction).error());
    auto done = client_->commit(std::move(*transaction));
    if (!done)
      return refuse(fmt::format("{}; it may have been written or not: look before trying again",
                                done.error().what));
    if (done->done) return std::move(*done);
    client_->follow();
  }
  return refuse("others change it all the time: nothing was written");
}

StoreEditor::Errors StoreEditor::check_change(const std::string& key,
                                              const config::EntryDefinition* definition,
                                              Errors& warnings) const {
  const auto before = check_entries(client_->entries(), key, nullptr, EntryChange::None);
  auto after = check_entries(client_->entries(), key, definition,
                             definition == nullptr ? EntryChange::Delete : EntryChange::Put);
  const auto is_old = [&](const ConfigError& error) {
    return std::any_of(before.errors.begin(), before.errors.end(), [&](const ConfigError& old) {
      return old.file == error.file && old.key == error.key && old.what == error.what;
    });
  };
  // What was wrong before does not get in the way of who mends it, one entry after the other.
  const bool worse = !std::all_of(after.errors.begin(), after.errors.end(), is_old);
  warnings = std::move(after.unreadable);
  if (worse) return std::move(after.errors);
  for (auto& error : after.errors) warnings.push_back(std::move(error));
  return {};
}

Edited StoreEditor::write_entry(const GivenText& given, IfIndex index) {
  auto read = catalog::read_given_entry(given);
  if (!read) return tl::unexpected(std::move(read).error());
  auto& definition = read->definition;
  const auto label =
      catalog::label(config::kind_of(definition.entry), config::name_of(definition.entry));
  const auto key = config_key(label);
  const auto text = catalog::json_of(*definition.document, -1);
  const auto wrong = [&](std::string what) {
    return tl::unexpected(Errors{{given.name, {}, {}, std::move(what)}});
  };
  if (text.size() > kMaxValueBytes)
    return wrong(fmt::format("the entry has more than {} KiB as JSON", kMaxValueBytes >> 10));
  auto again = read_config_value(label, text, given.name);
  if (!again || !(again->entry == definition.entry))
    return wrong("the entry cannot be written as JSON");

  Errors warnings;
  auto done = commit([&]() -> tl::expected<Transaction, Errors> {
    const auto* old = client_->find(key);
    const Revision modified = old == nullptr ? 0 : old->modified;
    if (index && modified != *index)
      return refuse(fmt::format("Config entry not updated: {}: its ModifyIndex is {}, not {}",
                                label, modified, *index));
    if (old == nullptr && client_->entries().size() >= kMaxKeys)
      return refuse(
          fmt::format("there are {} keys in the store already, and agents read no more", kMaxKeys));
    if (auto failed = check_change(key, &definition, warnings); !failed.empty())
      return tl::unexpected(std::move(failed));
    Transaction transaction;
    transaction.conditions.push_back({key, modified});
    transaction.unchanged.push_back(
        {std::string(kConfigBegin), std::string(kConfigEnd), client_->revision()});
    transaction.puts = {{key, text, 0}, note_of_change(label)};
    return transaction;
  });
  if (!done) return tl::unexpected(std::move(done).error());
  return fmt::format("Config entry written: {}", label) +
         catalog::text_of_warnings(read->warnings) + catalog::text_of_warnings(warnings);
}

Edited StoreEditor::delete_entry(config::Kind kind, std::string_view name, IfIndex index) {
  const auto label = catalog::label(kind, name);
  const auto key = config_key(label);
  const auto deleted = fmt::format("Config entry deleted: {}", label);
  if (!index && client_->find(key) == nullptr) return deleted;
  Errors warnings;
  auto done = commit([&]() -> tl::expected<Transaction, Errors> {
    const auto* old = client_->find(key);
    if (index && (old == nullptr || old->modified != *index))
      return refuse(fmt::format("Config entry not deleted: {}: its ModifyIndex is {}, not {}",
                                label, old == nullptr ? 0 : old->modified, *index));
    if (old == nullptr) return Transaction{};  // somebody else did it: this one holds
    if (auto failed = check_change(key, nullptr, warnings); !failed.empty())
      return tl::unexpected(std::move(failed));
    Transaction transaction;
    transaction.conditions.push_back({key, old->modified});
    transaction.unchanged.push_back(
        {std::string(kConfigBegin), std::string(kConfigEnd), client_->revision()});
    transaction.puts = {note_of_change(label)};
    transaction.deletes = {key};
    return transaction;
  });
  if (!done) return tl::unexpected(std::move(done).error());
  return deleted + catalog::text_of_warnings(warnings);
}

Edited StoreEditor::list_services() {
  std::vector<std::string> lines;
  for (const auto& [key, kv] : client_->entries()) {
    const auto name = parse_key(key);
    if (name.kind != Kind::Instance) continue;
    auto service = read_service(kv);
    lines.push_back(fmt::format(
        "{}  {}  {}", name.name, key_text(name.id),
        service ? service->instance.endpoint().to_string() : "left out: " + service.error().what));
  }
  return fmt::format("{}", fmt::join(lines, "\n"));
}

StoreEditor::Errors StoreEditor::check_registration(const std::vector<Put>& puts,
                                                    const std::vector<std::string>& deletes) const {
  return check_instances(client_->entries(), client_->revision(), puts, deletes);
}

Edited StoreEditor::register_services(const GivenText& given) {
  auto read = catalog::read_given_services(given);
  if (!read) return tl::unexpected(std::move(read).error());
  if (read->services.size() > kMaxInstancesAtOnce)
    return refuse(fmt::format("more than {} instances at once", kMaxInstancesAtOnce));
  auto done = commit([&]() -> tl::expected<Transaction, Errors> {
    Transaction transaction;
    for (const auto& service : read->services) {
      const auto key = instance_key(service.name, service.id);
      if (const auto node = agent_of(client_->entries(), key); !node.empty())
        return refuse(
            fmt::format("instance \"{}\" of service \"{}\" is what node \"{}\" registers "
                        "by its own files: change it there",
                        key_text(service.id), service.name, node));
      const auto* old = client_->find(key);
      if (std::any_of(transaction.puts.begin(), transaction.puts.end(),
                      [&](const Put& put) { return put.key == key; }))
        return refuse(fmt::format("the id \"{}\" is there twice", key_text(service.id)));
      transaction.conditions.push_back({key, old == nullptr ? 0 : old->modified});
      transaction.puts.push_back({key, service.json, 0});
      // As with Consul, an id is of one service at a time.
      for (const auto& other : keys_of_id(client_->entries(), service.id)) {
        if (other == key) continue;
        transaction.conditions.push_back({other, client_->find(other)->modified});
        transaction.deletes.push_back(other);
      }
    }
    std::erase_if(transaction.deletes, [&](const std::string& key) {
      return std::any_of(transaction.puts.begin(), transaction.puts.end(),
                         [&](const Put& put) { return put.key == key; });
    });
    if (auto failed = check_registration(transaction.puts, transaction.deletes); !failed.empty())
      return tl::unexpected(std::move(failed));
    return transaction;
  });
  if (!done) return tl::unexpected(std::move(done).error());
  std::string out;
  for (const auto& service : read->services)
    out += fmt::format("{}Registered service: {}", out.empty() ? "" : "\n",
                       syntax::printable(service.name));
  return out + catalog::text_of_warnings(read->warnings);
}

Edited StoreEditor::deregister_service(const std::string& id, const std::string& service) {
  auto done = commit([&]() -> tl::expected<Transaction, Errors> {
    auto keys = keys_of_id(client_->entries(), id);
    if (!service.empty())
      std::erase_if(keys, [&](const std::string& key) { return parse_key(key).name != service; });
    if (keys.empty()) {
      if (const auto nodes = nodes_of_id(client_->entries(), id); !nodes.empty())
        return refuse(
            fmt::format("\"{}\" is what node {} registers by its own files: take it out "
                        "there",
                        key_text(id), fmt::join(nodes, ", ")));
      return refuse(fmt::format("there is no instance with the id \"{}\"", key_text(id)));
    }
    if (keys.size() > 1) {
      std::vector<std::string> names;
      for (const auto& key : keys) names.emplace_back(parse_key(key).name);
      return refuse(fmt::format("{} have an instance with the id \"{}\": say which by --name",
                                fmt::join(names, ", "), key_text(id)));
    }
    Transaction transaction;
    transaction.conditions.push_back({keys[0], client_->find(keys[0])->modified});
    transaction.deletes = std::move(keys);
    return transaction;
  });
  if (!done) return tl::unexpected(std::move(done).error());
  return fmt::format("Deregistered service: {}", syntax::printable(id));
}

}  // namespace mesh::store
