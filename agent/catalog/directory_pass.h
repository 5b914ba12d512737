// SPDX-License-Identifier: Apache-2.0
// One pass over a configuration directory: list, read, check, list again. Blocking, no state but
// its own.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/catalog/files.h"
#include "agent/catalog/model.h"
#include "agent/catalog/vip.h"

namespace mesh::catalog {

class DirectoryPass {
 public:
  struct Outcome {
    enum class Kind {
      Unchanged,  // stat(2) data as after the last pass; nothing was read
      Unstable,   // files changed while they were read; nothing was concluded
      Good,       // `catalog` is the present state
      Bad,        // `errors` say why there is none
    };
    Kind kind = Kind::Unchanged;
    std::shared_ptr<const Catalog> catalog;
    std::vector<syntax::ConfigError> errors;
    std::vector<syntax::ConfigError> warnings;  // of a Good one
  };

  DirectoryPass(std::string directory, VipAllocator vips, std::optional<OwnNode> own)
      : directory_(std::move(directory)), vips_(std::move(vips)), own_(std::move(own)) {}

  // Unless `forced`, the files are read only if their stat(2) data changed. A Good outcome with the
  // content of the last one has the same pointer. Not thread-safe: one call at a time.
  Outcome run(bool forced);

 private:
  std::string directory_;
  VipAllocator vips_;
  std::optional<OwnNode> own_;
  std::optional<std::vector<FileStamp>> stamps_;  // as of the last pass that concluded something
  std::shared_ptr<const Catalog> catalog_;
};

}  // namespace mesh::catalog
