// SPDX-License-Identifier: Apache-2.0
// Programs that somebody else has taken off their hooks while the agent runs. BPF_LINK_DETACH
// leaves a link, its pin and our descriptor as they are, attached to nothing; only its info says
// so.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>

#include <cerrno>

#include "agent/bpf/programs.h"
#include "mesh.skel.h"

namespace mesh::bpf {
namespace {

bool detached(int link) {
  bpf_link_info info{};
  __u32 length = sizeof info;
  // A link that cannot be asked protects somebody, as far as anyone knows.
  if (bpf_obj_get_info_by_fd(link, &info, &length) != 0) return false;
  switch (info.type) {
    case BPF_LINK_TYPE_CGROUP:
      return info.cgroup.cgroup_id == 0;
    case BPF_LINK_TYPE_NETNS:
      return info.netns.netns_ino == 0;
    default:
      return false;  // tracing links cannot be detached
  }
}

}  // namespace

Programs::Reattached Programs::reattach() {
  Reattached result;
  if (taking_over_) return result;  // the hooks are still the former agent's
  std::vector<std::string> gone;
  for (const auto& [name, link] : held_)
    if (name.rfind(kNetnsPrefix, 0) != 0 && detached(link.get())) gone.push_back(name);
  const auto note = [&](const std::string& name, Status status) {
    if (status)
      result.back.push_back(name);
    else if (result.failed)  // the others protect somebody all the same
      result.failed = context(std::move(status).error(), fmt::format("attach {} again", name));
  };
  if (!gone.empty())
    if (auto ours = pins_.restore_directories(); !ours) {
      result.failed = tl::unexpected(ours.error());
      return result;
    }
  for (const auto& name : gone) note(name, attach_cgroup_program(program_of(name)));
  __u32 id = 0, count = 1;
  // Before 5.17 a sockmap could not be asked; then it is taken for attached.
  if (bpf_program__autoload(skeleton_->progs.mesh_recv) &&
      bpf_prog_query(bpf_map__fd(skeleton_->maps.mesh_accel), BPF_SK_MSG_VERDICT, 0, nullptr, &id,
                     &count) == 0 &&
      count == 0)
    note(bpf_program__name(skeleton_->progs.mesh_msg), attach_sockmap());
  return result;
}

bool Programs::inbound_detached(std::uint64_t netns_cookie) const {
  const auto link = held_.find(kNetnsPrefix + std::to_string(netns_cookie));
  return link != held_.end() && detached(link->second.get());
}

}  // namespace mesh::bpf
