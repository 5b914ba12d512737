// SPDX-License-Identifier: Apache-2.0
// Where catalogs come from. A directory of files is the first source; a key-value store or a
// cluster's API server can be others, with the same promises.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "agent/base/result.h"
#include "agent/catalog/model.h"
#include "agent/syntax/errors.h"

namespace mesh::catalog {

class CatalogSource {
 public:
  struct Handlers {
    // A whole new state that passed every check, never null. Called when the content changed, for
    // the first state even if it is empty, and for the first good state after on_error even if it
    // is the same as before (with the same pointer), so that the user can end a degraded mode.
    std::function<void(std::shared_ptr<const Catalog>)> on_catalog;
    // The source's present state is refused or cannot be read; the last catalog stays in force. Not
    // called again for the same errors.
    std::function<void(std::vector<syntax::ConfigError>)> on_error;
    // What is valid in the state that on_catalog gets, and without effect here. Called before it,
    // with what was not told for the state before; may be empty (the function, not the list).
    std::function<void(std::vector<syntax::ConfigError>)> on_warning = {};
  };

  virtual ~CatalogSource() = default;

  // Begins to watch. Handlers are called on the io_context of the source, never from inside
  // start(). Fails if the source cannot be watched at all. Call once.
  virtual Status start(Handlers handlers) = 0;

  // No handler is called after stop() has returned. Idempotent.
  virtual void stop() = 0;
};

}  // namespace mesh::catalog
