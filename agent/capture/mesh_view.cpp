// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/mesh_view.h"

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

std::optional<std::string> service_of_sni(const MeshView& view, std::string_view sni) {
  const std::string suffix = sni_suffix(view);
  if (sni.size() <= suffix.size() || !sni.ends_with(suffix)) return std::nullopt;
  return std::string(sni.substr(0, sni.size() - suffix.size()));
}

}  // namespace mesh::capture
