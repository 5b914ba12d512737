// SPDX-License-Identifier: Apache-2.0
// SVIDs that something else renews: a directory with <service>.pem (leaf first, then
// intermediates), <service>.key (0600) and trust.pem, whose first root names the trust domain.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "agent/identity/source.h"

namespace mesh::identity {

struct FileSourceOptions {
  std::string directory;
  // What peers want to see: the node that has signed, and the datacenter of the ID.
  std::string node_name;
  std::string datacenter;
  std::chrono::milliseconds poll{1000};  // of the files
  std::size_t max_identities = kMaxIdentities;
  std::function<std::chrono::system_clock::time_point()> now;  // null: the system clock
};

// `io` must outlive the source.
std::unique_ptr<Source> make_file_source(boost::asio::io_context& io, FileSourceOptions options);

}  // namespace mesh::identity
