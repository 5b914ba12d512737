// SPDX-License-Identifier: Apache-2.0
// Tells the service manager that started this process (systemd's Type=notify) how it is: datagrams
// to the socket that it named in $NOTIFY_SOCKET, as sd_notify(3) describes them. Without one,
// nothing.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

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

  // These from any thread.
  [[nodiscard]] bool listens() const { return socket_.valid(); }
  // The next process of the service gets a copy of this descriptor by this name (listen_fds.h).
  // What the manager does not keep, for want of room or because it was never asked to keep any, it
  // closes without a word. It does not look at what is stored, so it may well be hung up.
  Status store(std::string_view name, const UniqueFd& fd) const;
  Status remove(std::string_view name) const;  // all of that name
  // Returns when everything said before has been heard and acted on.
  Status settle(std::chrono::milliseconds limit) const;
  Status main_process(pid_t pid) const;  // the service goes on in another process

 private:
  Status send(std::string_view message, int fd = -1) const;

  UniqueFd socket_;
  std::string address_;  // as connect(2) wants it
  std::string told_;
};

}  // namespace mesh
