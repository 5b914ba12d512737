// SPDX-License-Identifier: Apache-2.0
// Definitions of all files to one catalog: the rules that hold between definitions, then the VIPs.
#pragma once

#include <memory>

#include "agent/catalog/errors.h"
#include "agent/catalog/model.h"
#include "agent/catalog/service_json.h"
#include "agent/catalog/vip.h"

namespace mesh::catalog {

// Groups definitions by service. Reports ids and endpoints that are not unique, instances of one
// service that disagree, names that differ only in case, and too many of anything. No VIPs yet.
// Meaningful only if `errors` is empty afterwards.
Catalog::Services group_services(Definitions definitions, ErrorList& errors);

// Gives every service its VIPs and makes the snapshot.
std::shared_ptr<const Catalog> make_catalog(Catalog::Services services, VipAllocator& vips);

}  // namespace mesh::catalog
