// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/directory_pass.h"

#include <algorithm>
#include <utility>

namespace mesh::catalog {

DirectoryPass::Outcome DirectoryPass::run(bool forced) {
  Outcome outcome;
  auto before = list_config_files(directory_);
  if (!before) {
    stamps_.reset();
    outcome.kind = Outcome::Kind::Bad;
    outcome.errors.push_back({directory_, {}, {}, std::move(before.error().what)});
    return outcome;
  }
  if (!forced && stamps_ && *stamps_ == *before) return outcome;

  std::vector<std::string> paths;
  paths.reserve(before->size());
  for (const auto& stamp : *before) paths.push_back(stamp.path);
  syntax::ErrorList errors;
  auto content = read_config_files(paths, own_ ? &*own_ : nullptr, errors);

  // Files of two generations must not be mixed, as when a symlink is swapped between two reads.
  auto after = list_config_files(directory_);
  if (!after || *after != *before) {
    outcome.kind = Outcome::Kind::Unstable;
    return outcome;
  }
  stamps_ = std::move(*after);
  if (!errors.empty()) {
    outcome.kind = Outcome::Kind::Bad;
    outcome.errors = errors.take();
    return outcome;
  }
  auto catalog = make_catalog(std::move(content.services), std::move(content.nodes), vips_,
                              std::move(content.entries));
  if (!catalog_ || !(*catalog_ == *catalog)) catalog_ = std::move(catalog);
  outcome.kind = Outcome::Kind::Good;
  outcome.catalog = catalog_;
  outcome.warnings = std::move(content.warnings);
  return outcome;
}

}  // namespace mesh::catalog
