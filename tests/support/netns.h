// SPDX-License-Identifier: Apache-2.0
// Network namespaces of a test. The fixture never keeps a descriptor of a namespace open: a
// namespace must be able to go away while the fixture still exists.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"

namespace mesh::test {

class Netns {
 public:
  // Bind mount /run/netns/mt-<pid>-<name>, as `ip netns add` makes it. lo is up.
  static Result<Netns> create(std::string_view name);
  // No mount: held by a process that does nothing else. lo is up.
  static Result<Netns> create_anonymous(std::string_view name);

  Netns(Netns&& other) noexcept;
  Netns& operator=(Netns&& other) noexcept;
  Netns(const Netns&) = delete;
  Netns& operator=(const Netns&) = delete;
  ~Netns() { remove(); }

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] std::string path() const;   // of the nsfs file
  [[nodiscard]] std::string token() const;  // what `ip link ... netns TOKEN` takes
  [[nodiscard]] Result<UniqueFd> open() const;
  [[nodiscard]] Result<std::uint64_t> cookie() const;
  // On a fresh thread inside the namespace.
  Status run(const std::function<Status()>& body) const;
  // Lines for `ip -batch -`, run inside.
  Status ip(std::string_view lines) const;
  // /proc/sys/<dots to slashes>, inside.
  Status sysctl(std::string_view key, std::string_view value) const;
  [[nodiscard]] bool has_link(const std::string& name) const;
  // Deletes the mount, or kills the holder. The namespace itself lives on while processes are in
  // it.
  void remove();

 private:
  Netns(std::string name, pid_t holder) : name_(std::move(name)), holder_(holder) {}
  std::string name_;
  pid_t holder_ = -1;  // of an anonymous namespace
};

}  // namespace mesh::test
