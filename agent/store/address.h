// SPDX-License-Identifier: Apache-2.0
// Where a store is, and how to get in: what --store and its companions say. Reads files, opens no
// connection.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agent/base/result.h"

namespace mesh::store {

struct StoreEndpoint {
  std::string host;  // an address without brackets, or a name
  std::string port;
  [[nodiscard]] std::string to_string() const;
  bool operator==(const StoreEndpoint&) const = default;
};

struct StoreAddress {
  std::vector<StoreEndpoint> endpoints;  // at least one, each once
  bool tls = false;
};

struct StoreAccess {
  std::string ca_file;    // who signs the servers' certificates; empty: the system's
  std::string cert_file;  // our own; empty: none
  std::string key_file;
  std::string user;  // empty: no login
  std::string password_file;
};

// etcd://host:port[,host:port...], etcds:// with TLS. The port may be left out: 2379.
Result<StoreAddress> parse_store(std::string_view text);
// A file of --store-ca-file and the others without etcds:// is a mistake, not a wish.
Status check_access(const StoreAddress& address, const StoreAccess& access);

// The first line of the file, without the line's end. Nobody else may read the file.
Result<std::string> read_password(const std::string& file);

}  // namespace mesh::store
