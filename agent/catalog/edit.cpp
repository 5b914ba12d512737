// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/edit.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>

#include "agent/base/ascii.h"
#include "agent/catalog/files.h"
#include "agent/syntax/errors.h"

namespace mesh::catalog {
namespace {

using syntax::ConfigError;
using syntax::ErrorList;
using syntax::Format;
using syntax::refuse;

constexpr std::size_t kMaxFileName = 200;
constexpr std::string_view kNoIndex = "files have no ModifyIndex: --cas is for --store";

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
    const bool plain = ascii::is_alnum(c) || c == '-' || c == '_' || c == '.';
    if (plain)
      out += c;
    else
      out += fmt::format("%{:02x}", static_cast<unsigned char>(c));
  }
  return out;
}

bool is(const config::EntryDefinition& definition, config::Kind kind, std::string_view name) {
  return config::kind_of(definition.entry) == kind && config::name_of(definition.entry) == name;
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

Edited DirectoryEditor::list_entries(std::optional<config::Kind> kind) {
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

Edited DirectoryEditor::read_entry(config::Kind kind, std::string_view name) {
  for (const auto& file : scan())
    for (const auto& definition : file.entries)
      if (is(definition, kind, name)) return json_of(*definition.document, 4);
  return refuse(directory_, fmt::format("there is no {}", label(kind, name)));
}

Edited DirectoryEditor::write_entry(const GivenText& given, IfIndex index) {
  if (index) return refuse(directory_, std::string(kNoIndex));
  auto read = read_given_entry(given);
  if (!read) return tl::unexpected(std::move(read).error());
  const auto format = read->format;
  const auto kind = config::kind_of(read->definition.entry);
  const std::string name(config::name_of(read->definition.entry));

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
  return out + text_of_warnings(read->warnings);
}

Edited DirectoryEditor::delete_entry(config::Kind kind, std::string_view name, IfIndex index) {
  if (index) return refuse(directory_, std::string(kNoIndex));
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

Edited DirectoryEditor::list_services() {
  std::set<std::string> lines;
  for (const auto& file : scan())
    for (const auto& d : file.definitions.services)
      lines.insert(fmt::format("{}  {}  {}", d.name, syntax::printable(d.instance.id),
                               d.instance.endpoint().to_string()));
  return fmt::format("{}", fmt::join(lines, "\n"));
}

Edited DirectoryEditor::register_services(const GivenText& given) {
  auto read = read_given_services(given);
  if (!read) return tl::unexpected(std::move(read).error());
  const auto files = scan();
  std::vector<Change> changes;
  std::string out;
  for (const auto& service : read->services) {
    auto path = fmt::format("{}/service.{}.json", directory_, file_name(service.id));
    if (path.size() - directory_.size() > kMaxFileName)
      return refuse(given.name, "the id is too long for the name of a file");
    auto old = only_in(files, "the instance", [&](const File& file) {
      const auto& services = file.definitions.services;
      return std::any_of(services.begin(), services.end(),
                         [&](const auto& d) { return d.instance.id == service.id; });
    });
    if (!old) return tl::unexpected(std::move(old).error());
    if (*old && **old != path) changes.push_back({**old, {}});
    changes.push_back({std::move(path), service.json});
    out += fmt::format("{}Registered service: {}", out.empty() ? "" : "\n",
                       syntax::printable(service.name));
  }
  // Removals last: a crash leaves too much, which is refused, rather than too little.
  std::stable_partition(changes.begin(), changes.end(),
                        [](const Change& change) { return !change.text.empty(); });
  if (auto failed = apply(changes); !failed.empty()) return tl::unexpected(std::move(failed));
  return out + text_of_warnings(read->warnings);
}

Edited DirectoryEditor::deregister_service(const std::string& id, const std::string& service) {
  auto old = only_in(scan(), "the instance", [&](const File& file) {
    const auto& services = file.definitions.services;
    return std::any_of(services.begin(), services.end(), [&](const auto& d) {
      return d.instance.id == id && (service.empty() || d.name == service);
    });
  });
  if (!old) return tl::unexpected(std::move(old).error());
  if (!*old) return refuse(directory_, fmt::format("there is no instance with the id \"{}\"", id));
  if (auto failed = apply({{**old, {}}}); !failed.empty()) return tl::unexpected(std::move(failed));
  return fmt::format("Deregistered service: {}", syntax::printable(id));
}

}  // namespace mesh::catalog
