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
