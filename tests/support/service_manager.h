// SPDX-License-Identifier: Apache-2.0
// Stands in for a service manager with a descriptor store: hears what sd_notify(3) describes on a
// socket of its own, keeps what FDSTORE=1 brings, and passes it to each start as sd_listen_fds(3)
// describes it.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "agent/base/unique_fd.h"

namespace mesh::test {

class ServiceManagerDouble {
 public:
  // Sockets in `directory`; keeps so many descriptors.
  ServiceManagerDouble(const std::string& directory, std::size_t most);
  ~ServiceManagerDouble();
  ServiceManagerDouble(const ServiceManagerDouble&) = delete;
  ServiceManagerDouble& operator=(const ServiceManagerDouble&) = delete;

  // Before the command line of the service: it then runs with what is stored.
  [[nodiscard]] std::vector<std::string> under() const;
  [[nodiscard]] std::pair<std::string, std::string> notify() const;  // for its environment

  [[nodiscard]] std::size_t stored();
  [[nodiscard]] std::string heard();  // all of it
  void drop();                        // as after a stop
  // With the newest one.
  void with_stored(const std::function<void(int fd)>& what);

 private:
  void run();
  void hear();
  void pass();

  const std::string notify_path_, start_path_;
  const std::size_t most_;
  UniqueFd notify_, start_, wake_;
  std::mutex mutex_;
  std::deque<std::pair<std::string, UniqueFd>> store_;  // the newest first
  std::string heard_;
  std::thread thread_;
};

}  // namespace mesh::test
