// SPDX-License-Identifier: Apache-2.0
// Definitions of all files to one catalog: the rules that hold between definitions, then the VIPs.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/catalog/model.h"
#include "agent/catalog/service_definition.h"
#include "agent/catalog/vip.h"
#include "agent/syntax/errors.h"

namespace mesh::catalog {

// Groups definitions by service. Reports ids and endpoints that are not unique, instances of one
// service that disagree, names that differ only in case, and too many of anything. No VIPs yet.
// Meaningful only if `errors` is empty afterwards.
Catalog::Services group_services(Definitions definitions, syntax::ErrorList& errors);

// What an agent was told about its own node: a catalog that contradicts it is refused.
struct OwnNode {
  std::string name;
  std::vector<Cidr> cidrs;
  std::optional<Cidr> vip_cidr6;
};

// Reports names and addresses that are not unique, ranges that overlap, too many of anything, and
// what contradicts `own` (if not null). Meaningful only if `errors` is empty afterwards.
Catalog::Nodes group_nodes(const Definitions& definitions, const OwnNode* own,
                           syntax::ErrorList& errors);

// Gives every service its VIPs and makes the snapshot.
std::shared_ptr<const Catalog> make_catalog(Catalog::Services services, Catalog::Nodes nodes,
                                            VipAllocator& vips,
                                            std::shared_ptr<const config::Entries> entries = {});

}  // namespace mesh::catalog
