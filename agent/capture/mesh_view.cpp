// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/mesh_view.h"

#include "agent/base/ascii.h"

namespace mesh::capture {
namespace {

std::string sni_suffix(const MeshView& view) {
  return fmt::format(".default.{}.internal.{}", view.datacenter, view.trust_domain);
}

}  // namespace

tl::expected<void, std::string> placed(const MeshView& view, const ktls::Peer& peer,
                                       const Address& from) {
  const auto service = view.service_of(peer.id);
  if (!service) return tl::unexpected(peer.id.uri() + " is not of this mesh");
  const auto there = view.catalog->identity_of(from);
  const auto* node = view.catalog->node_of(from);
  if (!there || *there != *service || node == nullptr || node->name != peer.node)
    return tl::unexpected(fmt::format("the catalog has no {} of node {} at {}", peer.id.uri(),
                                      peer.node, from.to_string()));
  // The intentions may still be those for the view before.
  if (view.settled) return placed(*view.settled, peer, from);
  return {};
}

bool placed_elsewhere(const MeshView& view, const ktls::Peer& peer, const Address& from) {
  const auto service = view.service_of(peer.id);
  const auto there = view.catalog->identity_of(from);
  const auto* node = view.catalog->node_of(from);
  return (service && there && *there != *service) || (node != nullptr && node->name != peer.node);
}

std::string sni_of(const MeshView& view, std::string_view service) {
  return std::string(service) + sni_suffix(view);
}

// What has come over the wire is in lower case, and names are unique without it.
const catalog::Service* service_of_sni(const MeshView& view, std::string_view sni,
                                       const Address& address) {
  const std::string name = ascii::lower_case(sni);
  const std::string suffix = ascii::lower_case(sni_suffix(view));
  if (name.size() <= suffix.size() || !name.ends_with(suffix)) return nullptr;
  const auto wanted = std::string_view(name).substr(0, name.size() - suffix.size());
  for (const auto* service : view.catalog->services_at(address))
    if (ascii::lower_case(service->name) == wanted) return service;
  return nullptr;
}

}  // namespace mesh::capture
