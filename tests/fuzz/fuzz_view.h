// SPDX-License-Identifier: Apache-2.0
// The mesh as an agent sees it, with a few services at one address.
#pragma once

#include <initializer_list>
#include <memory>
#include <utility>

#include "agent/capture/mesh_view.h"

namespace mesh::test {

inline const Address kServer = *Address::parse("10.0.1.1");

inline capture::MeshView view_of(std::initializer_list<const char*> services) {
  catalog::Catalog::Services all;
  for (const char* service : services) {
    all[service].name = service;
    all[service].instances.push_back({service, kServer, 80, {}, catalog::InstanceDetails{}});
  }
  capture::MeshView view;
  view.trust_domain = "mesh.test";
  view.datacenter = "dc1";
  view.catalog =
      std::make_shared<const catalog::Catalog>(std::move(all), catalog::Catalog::Nodes{});
  return view;
}

}  // namespace mesh::test
