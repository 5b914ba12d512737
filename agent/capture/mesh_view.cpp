// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/mesh_view.h"

namespace mesh::capture {
namespace {

std::string sni_suffix(const MeshView& view) {
  return fmt::format(".default.{}.internal.{}", view.datacenter, view.trust_domain);
}

}  // namespace

std::string sni_of(const MeshView& view, std::string_view service) {
  return std::string(service) + sni_suffix(view);
}

std::optional<std::string> service_of_sni(const MeshView& view, std::string_view sni) {
  const std::string suffix = sni_suffix(view);
  if (sni.size() <= suffix.size() || !sni.ends_with(suffix)) return std::nullopt;
  return std::string(sni.substr(0, sni.size() - suffix.size()));
}

}  // namespace mesh::capture
