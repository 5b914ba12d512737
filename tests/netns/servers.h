// SPDX-License-Identifier: Apache-2.0
// Servers that know nothing of a mesh, started in a pod and waited for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/node.h"

namespace mesh::test {

// Waits until somebody in the place listens at the port.
void wait_listening(const Place& at, std::uint16_t port);

struct NginxOptions {
  std::string servers;    // server blocks; /page and /large are below their root
  std::string more = "";  // directives of http {}
  unsigned workers = 1;
  std::size_t page = 3000;  // bytes
  std::size_t large = 5'000'000;
  std::vector<std::uint16_t> ports = {80};  // to wait for
};

// Keeps its files, also access.log if `more` asks for one, in `directory`, which it makes.
Process start_nginx(const Place& at, const std::string& directory, const NginxOptions& options);

Process start_redis(const Place& at, std::uint16_t port = 6379);

}  // namespace mesh::test
