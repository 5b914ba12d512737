// SPDX-License-Identifier: Apache-2.0
// What the relay's threads need to know of the mesh to open and to admit mesh legs. The control
// thread publishes whole snapshots.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "agent/capture/labels.h"
#include "agent/catalog/model.h"
#include "ktls/peer.h"
#include "ktls/spiffe_id.h"

namespace mesh::capture {

struct MeshView {
  std::shared_ptr<const catalog::Catalog> catalog;
  std::string node_name;
  std::string trust_domain;
  std::string datacenter;
  // Address of a workload here -> the service that it has its identity from. By address, because
  // that is all that other nodes know it by: a dual-stack workload is listed with both.
  std::map<Address, std::string> own;
  std::shared_ptr<const LabelNames> labels;
  // While this one is being applied: the last one whose intentions are in force, if there was one.
  // Who comes from another node, and whom he reaches, has to be the same by both.
  std::shared_ptr<const MeshView> settled;

  [[nodiscard]] Result<ktls::SpiffeId> id_of(std::string_view service) const {
    return ktls::SpiffeId::of_service(trust_domain, {"default", datacenter, std::string(service)});
  }
  // The service of an identity of this mesh: our trust domain, namespace and datacenter.
  [[nodiscard]] std::optional<std::string> service_of(const ktls::SpiffeId& id) const {
    auto parts = id.service();
    if (!parts || id.trust_domain() != trust_domain || parts->ns != "default" ||
        parts->dc != datacenter)
      return std::nullopt;
    return std::move(parts->service);
  }
  [[nodiscard]] std::uint32_t label_of(std::string_view service) const {
    if (!labels) return MESH_LABEL_UNKNOWN;
    auto it = labels->by_name.find(service);
    return it == labels->by_name.end() ? std::uint32_t{MESH_LABEL_UNKNOWN} : it->second;
  }
};

class MeshDirectory {
 public:
  // These two on the control thread. A view is published before its intentions are in force and
  // settled after that: what it takes away is gone at once, however long that may take or fail, and
  // what is new is not admitted by the intentions before it.
  void publish(MeshView view) {
    view.settled = settled_;
    current_.store(std::make_shared<const MeshView>(std::move(view)));
  }
  void settle() {
    const auto current = current_.load();
    if (!current || current == settled_) return;
    MeshView view = *current;
    view.settled.reset();
    settled_ = std::make_shared<const MeshView>(std::move(view));
    current_.store(settled_);
  }
  // Any thread; null before the first catalog.
  [[nodiscard]] std::shared_ptr<const MeshView> get() const { return current_.load(); }

 private:
  std::atomic<std::shared_ptr<const MeshView>> current_;
  std::shared_ptr<const MeshView> settled_;
};

// A node's CA can name any workload of the trust domain, so the catalog has to place it: the leg
// comes from the address of a workload with that identity on the node that issued it.
tl::expected<void, std::string> placed(const MeshView& view, const ktls::Peer& peer,
                                       const Address& from);
// For what is open already, since an instance that is withdrawn keeps its connections, and those of
// a node that the store has lost are still good: the catalog has somebody else at that address.
bool placed_elsewhere(const MeshView& view, const ktls::Peer& peer, const Address& from);

// Consul's form: <service>.<namespace>.<datacenter>.internal.<trust domain>
std::string sni_of(const MeshView& view, std::string_view service);
// The service with an instance at the address that an SNI, in whatever case, names; null when there
// is none, or it is not of this mesh.
const catalog::Service* service_of_sni(const MeshView& view, std::string_view sni,
                                       const Address& address);

}  // namespace mesh::capture
