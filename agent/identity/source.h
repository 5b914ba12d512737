// SPDX-License-Identifier: Apache-2.0
// Where SVIDs come from: the node's own CA or a directory of PEM files; a Workload API or an
// outside CA can be others, with the same promises.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/base/result.h"
#include "agent/identity/directory.h"
#include "ktls/fwd.h"

namespace mesh::identity {

inline constexpr std::size_t kMaxIdentities = 16'384;

// Totals since the start, but for `identities`.
struct Counters {
  std::size_t identities = 0;     // that have an SVID now
  std::uint64_t issued = 0;       // first SVID of a service, also after it was gone
  std::uint64_t renewed = 0;      // replaced by one that ends later, or of another key or chain
  std::uint64_t gone = 0;         // ended, removed, or no workload of this node any more
  std::uint64_t failed = 0;       // could not be made or read
  std::uint64_t refused = 0;      // asked for without a workload on this node, or above the bound
  std::uint64_t reloads = 0;      // changed files applied
  std::uint64_t bad_reloads = 0;  // changed files refused, the last good state stayed
};

// All members on the control thread (the one that runs the source's io_context), except that
// directory() may be handed to any thread.
class Source {
 public:
  // Called on the control thread, never from inside start(); directory() has the change already.
  // A handler may call members of the source, stop() included. Each may be null.
  struct Handlers {
    // A first or a renewed SVID. Open connections of the one before may go on.
    std::function<void(const std::string& service, const ktls::SvidPtr& svid)> on_svid;
    // The identity has ended: so must its connections, and its PSKs.
    std::function<void(const std::string& service)> on_gone;
    // Other roots than before; not called for those that start() found. PSKs of the epoch before
    // must not be used.
    std::function<void(const ktls::TrustBundlePtr& bundle)> on_bundle;
    // Something is wrong (bad files, an end that comes near) and the last good state is in force.
    // Not called again for the same text. on_good ends it.
    std::function<void(const std::string& what)> on_error;
    std::function<void()> on_good;
  };

  virtual ~Source() = default;

  // Reads the files for the first time and begins to watch. Fails if they are not usable: an agent
  // does not start without an identity that works. Call once.
  virtual Status start(Handlers handlers) = 0;

  // No handler is called after stop() has returned; waiting requests fail. Idempotent.
  virtual void stop() = 0;

  // The services that workloads of this node have, the whole list each time. Others get no SVID; a
  // service that is no longer listed is gone. Before the first call none is.
  virtual void allow(const std::vector<std::string>& services) = 0;

  // Makes the SVID now (a little later when many are asked for) instead of on the first request().
  virtual void want(const std::string& service) = 0;

  [[nodiscard]] virtual const std::string& trust_domain() const = 0;  // valid after start()
  [[nodiscard]] virtual const Counters& counters() const = 0;
  [[nodiscard]] virtual const std::shared_ptr<Directory>& directory() const = 0;

  // SVID, roots and epoch of one service; svid is null when there is none.
  [[nodiscard]] Identity current(std::string_view service) const {
    return directory()->find(service);
  }
};

}  // namespace mesh::identity
