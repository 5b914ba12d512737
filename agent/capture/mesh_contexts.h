// SPDX-License-Identifier: Apache-2.0
// TLS contexts of this node's identities, made when they are first needed and again when an SVID or
// the roots have changed. Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "agent/identity/directory.h"
#include "ktls/handshake.h"

namespace mesh::capture {

class MeshContexts {
 public:
  MeshContexts(std::shared_ptr<const identity::Directory> identities,
               std::shared_ptr<ktls::PskStore> psks, ktls::ContextOptions options)
      : identities_(std::move(identities)), psks_(std::move(psks)), options_(std::move(options)) {}

  // Fails when the service has no SVID now.
  Result<ktls::ContextPtr> find(std::string_view service);
  // Whether the root that the peer was verified by, maybe long ago, is trusted now.
  [[nodiscard]] bool trusts(const ktls::Peer& peer) const;
  // The PSKs' epoch has risen: contexts belong to the one they were made in.
  void forget();

  // Whether contexts that are made from now on offer and take PSKs; those there are forgotten.
  void set_psk(bool on);
  [[nodiscard]] bool psk() const;

 private:
  struct Entry {
    ktls::SvidPtr svid;
    ktls::TrustBundlePtr bundle;
    std::uint64_t epoch = 0;
    ktls::ContextPtr context;
  };

  const std::shared_ptr<const identity::Directory> identities_;
  const std::shared_ptr<ktls::PskStore> psks_;
  mutable std::mutex mutex_;
  ktls::ContextOptions options_;
  std::map<std::string, Entry, std::less<>> entries_;  // as many as there are identities
};

}  // namespace mesh::capture
