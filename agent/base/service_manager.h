// SPDX-License-Identifier: Apache-2.0
// Tells the service manager that started this process (systemd's Type=notify) how it is: datagrams
// to the socket that it named in $NOTIFY_SOCKET, as sd_notify(3) describes them. Without one,
// nothing.
#pragma once

#include <optional>
#include <string>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"

namespace mesh {

class ServiceManager {
 public:
  ServiceManager() = default;  // nobody listens
  // `address`: a path, or @NAME for an abstract socket. Null or empty: nobody listens.
  static Result<ServiceManager> at(const char* address);

  struct State {
    std::optional<std::string> not_ready;  // why
    bool stopping = false;
  };
  // Never blocks. Says what has changed since the last call that succeeded; one that failed is made
  // up for by the next.
  Status tell(const State& state);

 private:
  UniqueFd socket_;
  std::string address_;  // as connect(2) wants it
  std::string told_;
};

}  // namespace mesh
