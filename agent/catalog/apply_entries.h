// SPDX-License-Identifier: Apache-2.0
// What config entries say of services, put into the services: their protocol, who may reach them in
// clear, and that they exist.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "agent/catalog/model.h"
#include "agent/catalog/service_definition.h"
#include "agent/config/entry_set.h"
#include "agent/syntax/errors.h"

namespace mesh::catalog {

// Gives definitions the protocol of their service, and MutualTLSMode. Reports definitions that say
// otherwise, and, if `entries` are `complete`, everything that is wrong between them: where one
// could not be read, much would only seem to be missing.
void apply_entries(Definitions& definitions, const config::EntrySet& entries, bool complete,
                   syntax::ErrorList& errors);

// Names of services that exist because a resolver, splitter or router is for them, and which.
std::map<std::string, config::Kind> names_of_entries(const config::Entries& entries);

// What service-defaults say, or else proxy-defaults.
config::MutualTlsMode mutual_tls_of(const config::Entries& entries, std::string_view service);

// A name that a resolver, splitter or router is for is a service, with or without instances: it has
// a VIP, and leads where the entry says.
void add_named_services(Catalog::Services& services, const config::EntrySet& entries,
                        syntax::ErrorList& errors);

}  // namespace mesh::catalog
