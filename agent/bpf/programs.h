// SPDX-License-Identifier: Apache-2.0
// Loads the BPF programs, adopts what an earlier agent pinned, attaches beside the programs of
// others, and pins. It knows nothing about what the maps mean.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"
#include "agent/bpf/pins.h"

struct mesh_bpf;
struct bpf_program;

namespace mesh::bpf {

struct SkeletonDeleter {
  void operator()(mesh_bpf* skeleton) const noexcept;
};
using SkeletonPtr = std::unique_ptr<mesh_bpf, SkeletonDeleter>;

struct Degraded {
  std::string feature;  // "sockmap"
  std::string reason;   // why, and what follows
};

struct ProgramInfo {
  std::string name;
  std::uint32_t verified_instructions;
};

// What an agent that still runs has given to its successor.
struct FormerAgent {
  UniqueFd lock;
  std::uint64_t generation = 0;
};

class Programs {
 public:
  struct Options {
    std::filesystem::path pin_dir;
    std::filesystem::path cgroup_root;  // a cgroup v2 directory
    bool disable_tracing = false;       // force the degraded mode without fexit programs
  };

  // Loads and attaches everything except the per-namespace programs. Nothing is left attached when
  // it fails. With a former agent (its lock is valid) the programs take the place of its own, but
  // for what a generation decides: that comes with commit_generation(), and the former agent can
  // reclaim() until then.
  static Result<Programs> open(const Options& options, FormerAgent former = {});
  Status commit_generation();
  // Puts this agent's programs back where a successor that has failed had put its own.
  Status reclaim();
  [[nodiscard]] int lock() const { return pins_.lock(); }

  [[nodiscard]] mesh_bpf& skeleton() const { return *skeleton_; }
  [[nodiscard]] bool adopted() const { return pins_.adopted(); }
  // The kernel's id of one of the maps: another one after a cleanup. 0: it cannot be asked.
  [[nodiscard]] std::uint32_t maps_id() const;
  [[nodiscard]] std::uint64_t generation() const { return generation_; }
  [[nodiscard]] const std::vector<Degraded>& degraded() const { return degraded_; }
  [[nodiscard]] std::vector<ProgramInfo> verified() const;

  // The egress half of the HTTP sniffer is attached only while a service speaks HTTP: an empty hook
  // alone costs about 1.5 % of a request. Attach before the first such service is in the maps,
  // detach after the last is out.
  Status attach_sniffer();
  Status detach_sniffer();

  // sk_lookup of one namespace: updates the pinned link in place or makes one.
  Status attach_inbound(std::uint64_t netns_cookie, int netns_fd);
  Status detach_inbound(std::uint64_t netns_cookie);
  // Namespaces that have a pinned sk_lookup link; links of dead namespaces are dropped on the way.
  [[nodiscard]] std::vector<std::uint64_t> inbound_namespaces();

  // Pins again what somebody deleted; gives how many pins that were.
  Result<std::size_t> restore_pins();

  // Attaches again what somebody has detached from the cgroup or from the sockmap: all that can be,
  // and the first failure. Nothing while the hooks are a former agent's.
  struct Reattached {
    std::vector<std::string> back;  // names of programs
    Status failed;
  };
  Reattached reattach();
  // Somebody has detached the sk_lookup of a namespace (that lives): attach_inbound() once more.
  [[nodiscard]] bool inbound_detached(std::uint64_t netns_cookie) const;

  // Runs an iterator over the sockets of the mesh and gives what it wrote.
  [[nodiscard]] Result<std::vector<std::byte>> run_fold_iterator() const;
  [[nodiscard]] Result<std::vector<std::byte>> run_connections_iterator() const;
  [[nodiscard]] Result<std::vector<std::byte>> run_cookies_iterator() const;

 private:
  static constexpr const char* kNetnsPrefix = "netns-";

  explicit Programs(Pins pins) : pins_(std::move(pins)) {}
  Status load(const Options& options);
  Status attach_cgroup();
  Status attach_cgroup_program(bpf_program* program);
  Status attach_sockmap();
  [[nodiscard]] bpf_program* program_of(const std::string& link) const;
  Status attach_tracing();
  Status prepare_iterators();
  void undo_new_pins();
  Status hold(const std::string& name, int link);

  Pins pins_;
  SkeletonPtr skeleton_;
  UniqueFd cgroup_;
  std::uint64_t cgroup_id_ = 0;
  std::uint64_t generation_ = 1;
  bool taking_over_ = false;
  std::vector<Degraded> degraded_;
  std::vector<std::string> new_links_;
  UniqueFd fold_link_, connections_link_, cookies_link_;
  // The links beside their pins, by the pin's name: while the agent runs, whoever deletes the pins
  // must not open the datapath with them.
  std::map<std::string, UniqueFd> held_;
};

}  // namespace mesh::bpf
