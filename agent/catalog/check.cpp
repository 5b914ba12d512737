// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/check.h"

#include <filesystem>
#include <utility>

#include "agent/catalog/files.h"

namespace mesh::catalog {

CheckReport validate_files(const std::vector<std::string>& paths) {
  syntax::ErrorList errors;
  std::vector<std::string> files;
  for (const auto& path : paths) {
    std::error_code code;
    if (!std::filesystem::is_directory(path, code)) {
      files.push_back(path);  // if it cannot be opened, the reader says so
      continue;
    }
    auto listed = list_config_files(path);
    if (!listed) {
      errors.add({path, {}, {}, std::move(listed.error().what)});
      continue;
    }
    for (auto& stamp : *listed) files.push_back(std::move(stamp.path));
  }
  const auto content = read_config_files(files, nullptr, errors);
  CheckReport report;
  report.errors = errors.take();
  if (!report.errors.empty()) return report;
  report.warnings = content.warnings;
  report.entries = content.entries->size();
  report.services = content.services.size();
  report.nodes = content.nodes.size();
  for (const auto& [name, service] : content.services) report.instances += service.instances.size();
  return report;
}

}  // namespace mesh::catalog
