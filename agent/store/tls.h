// SPDX-License-Identifier: Apache-2.0
// TLS to a store's servers: the operator's certificates, not the mesh's.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>

#include "agent/store/address.h"

namespace mesh::store {

// Servers must show a certificate of ca_file for the host name or address that we connect to.
// Fails on files that cannot be used. Made anew for each session, so renewed files are seen.
Result<std::shared_ptr<boost::asio::ssl::context>> make_tls(const StoreAccess& access);
}  // namespace mesh::store
