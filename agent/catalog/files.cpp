// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "agent/base/log.h"
#include "agent/base/unique_fd.h"
#include "agent/catalog/apply_entries.h"
#include "agent/catalog/file_reader.h"
#include "agent/config/entry_set.h"
#include "agent/syntax/read.h"

namespace mesh::catalog {
namespace {

std::int64_t nanoseconds(const timespec& time) {
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

Result<std::string> read_file(const std::string& path, std::size_t limit) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return fail_errno(errno, "cannot open");
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return fail_errno(errno, "cannot stat");
  if (!S_ISREG(st.st_mode)) return fail("not a regular file");
  std::string text;
  constexpr std::size_t kChunk = 64 * 1024;
  while (text.size() <= limit) {
    std::size_t have = text.size();
    text.resize(have + kChunk);
    ssize_t got = ::read(fd.get(), text.data() + have, kChunk);
    int error = errno;
    text.resize(have + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    if (got < 0 && error != EINTR) return fail_errno(error, "cannot read");
    if (got == 0) break;
  }
  return text;
}

// Documents of one file, each an entry, a list of entries, or definitions.
class FileReader {
 public:
  FileReader(Definitions& definitions, std::vector<config::EntryDefinition>& entries,
             syntax::ErrorList& errors, syntax::ErrorList& warnings)
      : definitions_(definitions), entries_(entries), errors_(errors), warnings_(warnings) {}

  // Every entry so far could be read.
  [[nodiscard]] bool complete() const { return complete_; }
  void incomplete() { complete_ = false; }

  void read(const std::string& path, std::string_view text) {
    // A file that is named on a command line may have any name.
    const auto format = syntax::format_of(path).value_or(syntax::Format::Json);
    auto documents = syntax::read_documents(format, text);
    if (!documents) {
      errors_.add({path, documents.error().at, {}, std::move(documents.error().what)});
      complete_ = false;
      return;
    }
    syntax::Decoder decoder(path, errors_, warnings_);
    for (auto& document : *documents) {
      if (config::is_entry(document)) {
        config::read_entry(document, {}, decoder, entries_);
      } else if (!only_bootstrap(document, decoder)) {
        read_service_definitions(document, decoder, definitions_);
      }
    }
    if (decoder.found() != 0) complete_ = false;
  }

 private:
  // Takes `config_entries` out of the document; true if nothing else was there.
  bool only_bootstrap(syntax::Value& document, syntax::Decoder& decoder) {
    auto* object = std::get_if<syntax::Object>(&document.data);
    if (object == nullptr) return false;
    const auto is_bootstrap = [](const syntax::Member& member) {
      return syntax::same_key("ConfigEntries", member.key);
    };
    const auto before = object->size();
    for (const auto& member : *object)
      if (is_bootstrap(member))
        config::read_bootstrap(member.value, syntax::Path(member.key), decoder, entries_);
    std::erase_if(*object, is_bootstrap);
    return object->empty() && before > 0;
  }

  Definitions& definitions_;
  std::vector<config::EntryDefinition>& entries_;
  syntax::ErrorList& errors_;
  syntax::ErrorList& warnings_;
  bool complete_ = true;
};

}  // namespace

bool is_config_name(std::string_view name) {
  return !name.starts_with('.') && syntax::format_of(name).has_value();
}

Result<std::vector<FileStamp>> list_config_files(const std::string& directory) {
  std::error_code code;
  std::filesystem::directory_iterator it(directory, code);
  std::vector<FileStamp> stamps;
  for (; !code && it != std::filesystem::directory_iterator(); it.increment(code)) {
    std::string name = it->path().filename().string();
    if (!is_config_name(name)) {
      log::debug("{}: ignored, not a configuration file", syntax::printable(it->path().string()));
      continue;
    }
    FileStamp stamp;
    stamp.path = it->path().string();
    struct stat st {};
    if (::stat(stamp.path.c_str(), &st) == 0) {
      if (S_ISDIR(st.st_mode)) {
        log::debug("{}: ignored, a directory", syntax::printable(stamp.path));
        continue;
      }
      stamp.device = st.st_dev;
      stamp.inode = st.st_ino;
      stamp.size = static_cast<std::uint64_t>(st.st_size);
      stamp.modified_ns = nanoseconds(st.st_mtim);
      stamp.changed_ns = nanoseconds(st.st_ctim);
    }
    if (stamps.size() == kMaxFiles) return fail("more than {} configuration files", kMaxFiles);
    stamps.push_back(std::move(stamp));
  }
  if (code) return tl::unexpected(Error{code, fmt::format("cannot read: {}", code.message())});
  std::sort(stamps.begin(), stamps.end(),
            [](const FileStamp& a, const FileStamp& b) { return a.path < b.path; });
  return stamps;
}

ConfigContent read_config_files(const std::vector<std::string>& paths, const OwnNode* own,
                                syntax::ErrorList& errors,
                                const std::map<std::string, std::string>& texts) {
  Definitions definitions;
  std::vector<config::EntryDefinition> entries;
  syntax::ErrorList warnings;
  FileReader reader(definitions, entries, errors, warnings);
  std::size_t total = 0;
  for (const auto& path : paths) {
    const auto given = texts.find(path);
    auto text = given == texts.end() ? read_file(path, syntax::kMaxFileBytes)
                                     : Result<std::string>(given->second);
    if (!text) {
      errors.add({path, {}, {}, std::move(text.error().what)});
      reader.incomplete();
      continue;
    }
    total += text->size();
    if (total > kMaxTotalBytes) {
      errors.add({path,
                  {},
                  {},
                  fmt::format("all files together are larger than {} MiB", kMaxTotalBytes >> 20)});
      break;
    }
    reader.read(path, *text);
    // The rules report it.
    if (definitions.services.size() > kMaxInstances || definitions.nodes.size() > kMaxNodes ||
        entries.size() > config::kMaxEntries)
      break;
  }
  ConfigContent content;
  config::EntrySet set;
  set.add(std::move(entries), errors);
  apply_entries(definitions, set, reader.complete(), errors);
  content.nodes = group_nodes(definitions, own, errors);
  content.services = group_services(std::move(definitions), errors);
  if (errors.empty()) add_named_services(content.services, set, errors);
  content.entries = set.take();
  content.warnings = warnings.take();
  return content;
}

}  // namespace mesh::catalog
