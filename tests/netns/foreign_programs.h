// SPDX-License-Identifier: Apache-2.0
// BPF programs of somebody else on the hooks that the agent uses, and what is attached to a hook.
#pragma once

#include <linux/bpf.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"
#include "tests/support/netns.h"

namespace mesh::test {

// Programs that let everything pass, attached to a cgroup (BPF_F_ALLOW_MULTI) and to a namespace.
class ForeignPrograms {
 public:
  static Result<ForeignPrograms> attach(const std::string& cgroup, const Netns& netns);

  // A sockops program that takes every callback away from each socket at each of its events, as one
  // does that knows of nobody else. Attach it after the agent: the last one to run wins.
  static Result<ForeignPrograms> steal_callbacks(const std::string& cgroup);

  // As many sk_lookup programs as the namespace takes beside those that it has.
  static Result<ForeignPrograms> fill_lookup(const Netns& netns);

  ForeignPrograms(ForeignPrograms&&) = default;
  ForeignPrograms& operator=(ForeignPrograms&&) = delete;
  ~ForeignPrograms();

  // Hooks on which a program of this object is no longer attached; empty if all is well.
  [[nodiscard]] Result<std::vector<std::string>> missing() const;

 private:
  struct Attached {
    std::string hook;
    bpf_attach_type type{};
    UniqueFd target;  // of a cgroup; netns programs are looked up by the namespace's path
    UniqueFd program;
    UniqueFd link;  // of a netns program
    std::uint32_t id = 0;
  };
  ForeignPrograms() = default;
  Status add_cgroup(const std::string& cgroup, const std::string& hook, bpf_prog_type type,
                    bpf_attach_type attach_type, std::span<const bpf_insn> program);
  Status add_lookup(const Netns& netns);
  std::vector<Attached> attached_;
};

// Program ids on every cgroup hook of a directory, by hook name; hooks without a program are left
// out.
Result<std::map<std::string, std::vector<std::uint32_t>>> cgroup_programs(
    const std::string& cgroup);

// Programs of sk_lookup in a namespace.
Result<std::vector<std::uint32_t>> lookup_programs(const Netns& netns);

}  // namespace mesh::test
