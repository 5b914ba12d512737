// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/mesh_contexts.h"

namespace mesh::capture {

Result<ktls::ContextPtr> MeshContexts::find(std::string_view service) {
  // Before the roots: if they change in between, the context has the new ones and an old epoch, and
  // is made again the next time.
  const auto epoch = psks_->epoch();
  auto identity = identities_->find(service);
  const std::lock_guard lock(mutex_);
  auto found = entries_.find(service);
  if (!identity.svid || !identity.bundle) {
    if (found != entries_.end()) entries_.erase(found);
    return fail("service '{}' has no identity now", service);
  }
  if (found != entries_.end() && found->second.svid == identity.svid &&
      found->second.bundle == identity.bundle && found->second.epoch == epoch)
    return found->second.context;
  auto context = ktls::make_context(identity.svid, identity.bundle, psks_, epoch, options_);
  if (!context) return tl::unexpected(std::move(context).error());
  entries_.insert_or_assign(std::string(service),
                            Entry{identity.svid, identity.bundle, epoch, *context});
  return context;
}

bool MeshContexts::trusts(const ktls::Peer& peer) const {
  const auto bundle = identities_->bundle();
  return bundle && ktls::trusts(*bundle, peer);
}

void MeshContexts::forget() {
  const std::lock_guard lock(mutex_);
  entries_.clear();
}

void MeshContexts::set_psk(bool on) {
  const std::lock_guard lock(mutex_);
  if (options_.psk == on) return;
  options_.psk = on;
  entries_.clear();
}

bool MeshContexts::psk() const {
  const std::lock_guard lock(mutex_);
  return options_.psk;
}

}  // namespace mesh::capture
