// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/edit.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "agent/catalog/files.h"
#include "agent/syntax/errors.h"

namespace mesh::catalog {
namespace {

using syntax::ConfigError;
using syntax::ErrorList;
using syntax::Format;
using syntax::Value;

constexpr std::size_t kMaxFileName = 200;

tl::unexpected<std::vector<ConfigError>> refuse(const std::string& file, std::string what) {
  return tl::unexpected(std::vector<ConfigError>{{file, {}, {}, std::move(what)}});
}

nlohmann::ordered_json to_json(const Value& value) {
  if (const auto* flag = value.get<bool>()) return *flag;
  if (const auto* integer = value.get<std::int64_t>()) return *integer;
  if (const auto* number = value.get<double>()) return *number;
  if (const auto* text = value.get<std::string>()) return *text;
  if (const auto* array = value.get<syntax::Array>()) {
    auto out = nlohmann::ordered_json::array();
    for (const auto& element : *array) out.push_back(to_json(element));
    return out;
  }
  if (const auto* object = value.get<syntax::Object>()) {
    auto out = nlohmann::ordered_json::object();
    for (const auto& member : *object) out[member.key] = to_json(member.value);
    return out;
  }
  return nullptr;
}

// Does not throw, whatever bytes escapes have made.
std::string to_text(const nlohmann::ordered_json& json, int indent) {
  return json.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

// A text from standard input has no name to tell its syntax by.
Format format_of(const GivenText& given) {
  if (auto format = syntax::format_of(given.name)) return *format;
  const auto start = given.text.find_first_not_of(" \t\r\n");
  if (start != std::string::npos && given.text[start] == '{') return Format::Json;
  return given.text.starts_with("apiVersion:") ||
                 given.text.find("\napiVersion:") != std::string::npos
             ? Format::Yaml
             : Format::Hcl;
}

std::string_view ending_of(Format format) {
  switch (format) {
    case Format::Hcl:
      return "hcl";
    case Format::Json:
      return "json";
    case Format::Yaml:
      return "yaml";
  }
  return "json";
}

// Letters, digits, '-', '_' and '.' stay; an id may have anything.
std::string file_name(std::string_view id) {
  std::string out;
  for (const char c : id) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       c == '-' || c == '_' || c == '.';
    if (plain)
      out += c;
    else
      out += fmt::format("%{:02x}", static_cast<unsigned char>(c));
  }
  return out;
}

std::string label(config::Kind kind, std::string_view name) {
  return fmt::format("{}/{}", config::to_string(kind), name);
}

bool is(const config::EntryDefinition& definition, config::Kind kind, std::string_view name) {
  return config::kind_of(definition.entry) == kind && config::name_of(definition.entry) == name;
}

// The values of `service` and `services`.
std::vector<const Value*> services_of(const Value& document) {
  std::vector<const Value*> out;
  const auto* object = document.get<syntax::Object>();
  if (object == nullptr) return out;
  for (const auto& member : *object) {
    if (!syntax::same_key("Service", member.key) && !syntax::same_key("Services", member.key))
      continue;
    if (const auto* array = member.value.get<syntax::Array>())
      for (const auto& element : *array) out.push_back(&element);
    else
      out.push_back(&member.value);
  }
  return out;
}

}  // namespace

Result<DirectoryEditor> DirectoryEditor::open(std::string directory, bool for_writing) {
  UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, directory);
  while (for_writing && ::flock(fd.get(), LOCK_EX) != 0)
    if (errno != EINTR) return fail_errno(errno, fmt::format("lock {}", directory));
  return DirectoryEditor(std::move(directory), std::move(fd));
}

std::vector<DirectoryEditor::File> DirectoryEditor::scan() const {
  std::vector<File> files;
  auto listed = list_config_files(directory_);
  if (!listed) return files;  // a change tells; to a reader it is empty
  for (const auto& stamp : *listed) {
    auto text = read_file(stamp.path, syntax::kMaxFileBytes);
    if (!text) continue;
    File file;
    file.path = stamp.path;
    ErrorList errors;
    ErrorList warnings;
    FileReader(file.definitions, file.entries, errors, warnings, FileReader::Keep::All)
        .read(stamp.path, *text);
    files.push_back(std::move(file));
  }
  return files;
}

template <typename Holds>
tl::expected<std::optional<std::string>, std::vector<ConfigError>> DirectoryEditor::only_in(
    const std::vector<File>& files, const std::string& what, Holds holds) const {
  for (const auto& file : files) {
    if (!holds(file)) continue;
    if (file.size() == 1) return file.path;
    return refuse(file.path, fmt::format("{} is in this file with others: change it there", what));
  }
  return std::nullopt;
}

std::vector<ConfigError> DirectoryEditor::apply(const std::vector<Change>& changes) const {
  auto listed = list_config_files(directory_);
  if (!listed) return {{directory_, {}, {}, std::move(listed.error().what)}};
  std::set<std::string> paths;
  for (auto& stamp : *listed) paths.insert(std::move(stamp.path));
  std::map<std::string, std::string> texts;
  for (const auto& change : changes) {
    if (change.text.empty()) {
      paths.erase(change.path);
    } else {
      paths.insert(change.path);
      texts[change.path] = change.text;
    }
  }
  ErrorList errors;
  (void)read_config_files({paths.begin(), paths.end()}, nullptr, errors, texts);
  if (!errors.empty()) return errors.take();
  for (const auto& change : changes)
    if (auto status = write(change); !status)
      return {{change.path, {}, {}, std::move(status.error().what)}};
  // What was renamed is there after a crash as well.
  if (::fsync(lock_.get()) != 0) return {{directory_, {}, {}, "cannot be synced"}};
  return {};
}

Status DirectoryEditor::write(const Change& change) const {
  if (change.text.empty()) {
    if (::unlink(change.path.c_str()) != 0 && errno != ENOENT)
      return fail_errno(errno, "cannot be removed");
    return {};
  }
  // A dot file is not read while it is written.
  std::string temporary = directory_ + "/.mesh-agent-XXXXXX";
  UniqueFd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot be made");
  const auto failed = [&](std::string_view what) {
    const int error = errno;
    (void)::unlink(temporary.c_str());  // it is not read, whatever becomes of it
    return fail_errno(error, what);
  };
  for (std::string_view rest = change.text; !rest.empty();) {
    const auto wrote = ::write(fd.get(), rest.data(), rest.size());
    if (wrote < 0 && errno != EINTR) return failed("cannot be written");
    rest.remove_prefix(static_cast<std::size_t>(std::max<ssize_t>(wrote, 0)));
  }
  if (::fchmod(fd.get(), 0644) != 0 || ::fsync(fd.get()) != 0) return failed("cannot be written");
  if (::rename(temporary.c_str(), change.path.c_str()) != 0) return failed("cannot be renamed");
  return {};
}

Edited DirectoryEditor::list_entries(std::optional<config::Kind> kind) const {
  std::set<std::string> lines;
  for (const auto& file : scan())
    for (const auto& definition : file.entries) {
      const auto own = config::kind_of(definition.entry);
      const auto name = config::name_of(definition.entry);
      if (!kind)
        lines.insert(label(own, name));
      else if (own == *kind)
        lines.emplace(name);
    }
  return fmt::format("{}", fmt::join(lines, "\n"));
}

Edited DirectoryEditor::read_entry(config::Kind kind, std::string_view name) const {
  for (const auto& file : scan())
    for (const auto& definition : file.entries)
      if (is(definition, kind, name)) return to_text(to_json(*definition.document), 4);
  return refuse(directory_, fmt::format("there is no {}", label(kind, name)));
}

Edited DirectoryEditor::write_entry(const GivenText& given) {
  const auto format = format_of(given);
  Definitions definitions;
  std::vector<config::EntryDefinition> entries;
  ErrorList errors;
  ErrorList warnings;
  FileReader(definitions, entries, errors, warnings).read(given.name, given.text, format);
  if (!errors.empty()) return tl::unexpected(errors.take());
  if (entries.size() != 1 || !definitions.services.empty() || !definitions.nodes.empty())
    return refuse(given.name, fmt::format("expected one config entry, found {}", entries.size()));
  const auto kind = config::kind_of(entries[0].entry);
  const std::string name(config::name_of(entries[0].entry));

  const auto files = scan();
  auto old = only_in(files, label(kind, name), [&](const File& file) {
    return std::any_of(file.entries.begin(), file.entries.end(),
                       [&](const auto& definition) { return is(definition, kind, name); });
  });
  if (!old) return tl::unexpected(std::move(old).error());
  std::vector<Change> changes;
  if (*old && syntax::format_of(**old) == format) {
    changes.push_back({**old, given.text});
  } else {
    // No name of a service begins with '_'.
    auto path = fmt::format("{}/{}.{}.{}", directory_, config::to_string(kind),
                            name == "*" ? "_any_" : name, ending_of(format));
    if (std::any_of(files.begin(), files.end(),
                    [&](const File& file) { return file.path == path && file.size() != 0; }))
      return refuse(path, "this file is there already and holds something else");
    changes.push_back({std::move(path), given.text});
    if (*old) changes.push_back({**old, {}});
  }
  if (auto failed = apply(changes); !failed.empty()) return tl::unexpected(std::move(failed));
  std::string out = fmt::format("Config entry written: {}", label(kind, name));
  for (const auto& warning : warnings.take())
    out += fmt::format("\nwarning: {}", warning.to_string());
  return out;
}

Edited DirectoryEditor::delete_entry(config::Kind kind, std::string_view name) {
  const auto files = scan();
  auto old = only_in(files, label(kind, name), [&](const File& file) {
    return std::any_of(file.entries.begin(), file.entries.end(),
                       [&](const auto& definition) { return is(definition, kind, name); });
  });
  if (!old) return tl::unexpected(std::move(old).error());
  if (*old)
    if (auto failed = apply({{**old, {}}}); !failed.empty())
      return tl::unexpected(std::move(failed));
  return fmt::format("Config entry deleted: {}", label(kind, name));
}

Edited DirectoryEditor::list_services() const {
  std::set<std::string> lines;
  for (const auto& file : scan())
    for (const auto& d : file.definitions.services)
      lines.insert(fmt::format("{}  {}  {}", d.name, syntax::printable(d.instance.id),
                               d.instance.endpoint().to_string()));
  return fmt::format("{}", fmt::join(lines, "\n"));
}

Edited DirectoryEditor::register_services(const GivenText& given) {
  auto documents = syntax::read_documents(format_of(given), given.text);
  if (!documents)
    return tl::unexpected(std::vector<ConfigError>{
        {given.name, documents.error().at, {}, std::move(documents.error().what)}});
  ErrorList errors;
  ErrorList warnings;
  Definitions all;
  syntax::Decoder decoder(given.name, errors, warnings);
  for (const auto& document : *documents) read_service_definitions(document, decoder, all);
  if (!errors.empty()) return tl::unexpected(errors.take());
  if (!all.nodes.empty()) return refuse(given.name, "nodes cannot be registered, only services");
  if (all.services.empty()) return refuse(given.name, "there is no service definition in it");

  const auto files = scan();
  std::vector<Change> changes;
  std::string out;
  for (const auto& document : *documents) {
    for (const auto* value : services_of(document)) {
      nlohmann::ordered_json wrapped;
      wrapped["service"] = to_json(*value);
      const auto text = to_text(wrapped, 2) + "\n";
      Definitions one;
      read_service_definitions(given.name, text, one, errors);
      if (errors.empty() && one.services.empty()) continue;  // a sidecar, which is left out
      if (!errors.empty())
        return refuse(given.name, "a definition of it cannot be written as JSON");
      const auto& id = one.services[0].instance.id;
      auto path = fmt::format("{}/service.{}.json", directory_, file_name(id));
      if (path.size() - directory_.size() > kMaxFileName)
        return refuse(given.name, "the id is too long for the name of a file");
      auto old = only_in(files, "the instance", [&](const File& file) {
        const auto& services = file.definitions.services;
        return std::any_of(services.begin(), services.end(),
                           [&](const auto& d) { return d.instance.id == id; });
      });
      if (!old) return tl::unexpected(std::move(old).error());
      if (*old && **old != path) changes.push_back({**old, {}});
      changes.push_back({std::move(path), text});
      out += fmt::format("{}Registered service: {}", out.empty() ? "" : "\n",
                         syntax::printable(one.services[0].name));
    }
  }
  // Removals last: a crash leaves too much, which is refused, rather than too little.
  std::stable_partition(changes.begin(), changes.end(),
                        [](const Change& change) { return !change.text.empty(); });
  if (auto failed = apply(changes); !failed.empty()) return tl::unexpected(std::move(failed));
  return out;
}

Edited DirectoryEditor::deregister_service(const std::string& id) {
  auto old = only_in(scan(), "the instance", [&](const File& file) {
    const auto& services = file.definitions.services;
    return std::any_of(services.begin(), services.end(),
                       [&](const auto& d) { return d.instance.id == id; });
  });
  if (!old) return tl::unexpected(std::move(old).error());
  if (!*old) return refuse(directory_, fmt::format("there is no instance with the id \"{}\"", id));
  if (auto failed = apply({{**old, {}}}); !failed.empty()) return tl::unexpected(std::move(failed));
  return fmt::format("Deregistered service: {}", syntax::printable(id));
}

}  // namespace mesh::catalog
