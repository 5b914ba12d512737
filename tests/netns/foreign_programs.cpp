// SPDX-License-Identifier: Apache-2.0
#include "tests/netns/foreign_programs.h"

#include <bpf/bpf.h>
#include <fcntl.h>

#include <algorithm>
#include <array>

namespace mesh::test {
namespace {

// r0 = 1; exit. "Allow" on every hook used here; SK_PASS is 1 as well.
constexpr std::array<bpf_insn, 2> kAllow{
    bpf_insn{BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1},
    bpf_insn{BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
};

// r2 = 0; bpf_sock_ops_cb_flags_set(ctx, r2); r0 = 1; exit.
constexpr std::array<bpf_insn, 4> kStealCallbacks{
    bpf_insn{BPF_ALU64 | BPF_MOV | BPF_K, 2, 0, 0, 0},
    bpf_insn{BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_sock_ops_cb_flags_set},
    bpf_insn{BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1},
    bpf_insn{BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
};

Result<UniqueFd> load(bpf_prog_type type, bpf_attach_type attach_type,
                      std::span<const bpf_insn> program) {
  LIBBPF_OPTS(bpf_prog_load_opts, options, .expected_attach_type = attach_type);
  UniqueFd fd(::bpf_prog_load(type, "foreign", "GPL", program.data(), program.size(), &options));
  if (!fd) return fail_errno(errno, "load a foreign program");
  return fd;
}

Result<std::uint32_t> program_id(int fd) {
  bpf_prog_info info{};
  __u32 length = sizeof info;
  if (::bpf_obj_get_info_by_fd(fd, &info, &length) < 0) return fail_errno(errno, "program info");
  return info.id;
}

Result<std::vector<std::uint32_t>> query(int target, bpf_attach_type type) {
  std::array<__u32, 64> ids{};
  __u32 count = ids.size();
  __u32 flags = 0;
  if (::bpf_prog_query(target, type, 0, &flags, ids.data(), &count) < 0)
    return fail_errno(errno, "query programs");
  return std::vector<std::uint32_t>(ids.begin(), ids.begin() + count);
}

struct Hook {
  const char* name;
  bpf_attach_type type;
};
constexpr std::array kHooks{
    Hook{"connect4", BPF_CGROUP_INET4_CONNECT},
    Hook{"connect6", BPF_CGROUP_INET6_CONNECT},
    Hook{"getpeername4", BPF_CGROUP_INET4_GETPEERNAME},
    Hook{"getpeername6", BPF_CGROUP_INET6_GETPEERNAME},
    Hook{"getsockname4", BPF_CGROUP_INET4_GETSOCKNAME},
    Hook{"getsockname6", BPF_CGROUP_INET6_GETSOCKNAME},
    Hook{"sockops", BPF_CGROUP_SOCK_OPS},
    Hook{"ingress", BPF_CGROUP_INET_INGRESS},
    Hook{"egress", BPF_CGROUP_INET_EGRESS},
    Hook{"bind4", BPF_CGROUP_INET4_BIND},
    Hook{"sock_create", BPF_CGROUP_INET_SOCK_CREATE},
    Hook{"sock_release", BPF_CGROUP_INET_SOCK_RELEASE},
    Hook{"getsockopt", BPF_CGROUP_GETSOCKOPT},
    Hook{"setsockopt", BPF_CGROUP_SETSOCKOPT},
    Hook{"sysctl", BPF_CGROUP_SYSCTL},
};

Result<UniqueFd> open_directory(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, fmt::format("open {}", path));
  return fd;
}

}  // namespace

Status ForeignPrograms::add_cgroup(const std::string& cgroup, const std::string& hook,
                                   bpf_prog_type type, bpf_attach_type attach_type,
                                   std::span<const bpf_insn> instructions) {
  Attached one;
  one.hook = hook;
  one.type = attach_type;
  auto target = open_directory(cgroup);
  if (!target) return tl::unexpected(target.error());
  auto program = load(type, attach_type, instructions);
  if (!program) return context(program.error(), hook);
  if (::bpf_prog_attach(program->get(), target->get(), attach_type, BPF_F_ALLOW_MULTI) < 0)
    return fail_errno(errno, fmt::format("attach a foreign {}", hook));
  auto id = program_id(program->get());
  if (!id) return tl::unexpected(id.error());
  one.target = std::move(*target);
  one.program = std::move(*program);
  one.id = *id;
  attached_.push_back(std::move(one));
  return {};
}

Status ForeignPrograms::add_lookup(const Netns& netns) {
  Attached one;
  one.hook = "sk_lookup";
  one.type = BPF_SK_LOOKUP;
  auto target = netns.open();
  if (!target) return tl::unexpected(target.error());
  auto program = load(BPF_PROG_TYPE_SK_LOOKUP, BPF_SK_LOOKUP, kAllow);
  if (!program) return context(program.error(), "sk_lookup");
  one.link.reset(::bpf_link_create(program->get(), target->get(), BPF_SK_LOOKUP, nullptr));
  if (!one.link) return fail_errno(errno, "attach a foreign sk_lookup");
  auto id = program_id(program->get());
  if (!id) return tl::unexpected(id.error());
  one.target = std::move(*target);
  one.program = std::move(*program);
  one.id = *id;
  attached_.push_back(std::move(one));
  return {};
}

Result<ForeignPrograms> ForeignPrograms::attach(const std::string& cgroup, const Netns& netns) {
  ForeignPrograms all;
  const auto add = [&](const char* hook, bpf_prog_type type, bpf_attach_type attach_type) {
    return all.add_cgroup(cgroup, hook, type, attach_type, kAllow);
  };
  MESH_TRY(add("connect4", BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_CONNECT), "");
  MESH_TRY(add("connect6", BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET6_CONNECT), "");
  MESH_TRY(add("getpeername4", BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_GETPEERNAME), "");
  MESH_TRY(add("sockops", BPF_PROG_TYPE_SOCK_OPS, BPF_CGROUP_SOCK_OPS), "");
  MESH_TRY(add("ingress", BPF_PROG_TYPE_CGROUP_SKB, BPF_CGROUP_INET_INGRESS), "");
  MESH_TRY(add("egress", BPF_PROG_TYPE_CGROUP_SKB, BPF_CGROUP_INET_EGRESS), "");
  MESH_TRY(all.add_lookup(netns), "");
  return all;
}

Result<ForeignPrograms> ForeignPrograms::steal_callbacks(const std::string& cgroup) {
  ForeignPrograms all;
  MESH_TRY(all.add_cgroup(cgroup, "sockops", BPF_PROG_TYPE_SOCK_OPS, BPF_CGROUP_SOCK_OPS,
                          kStealCallbacks),
           "");
  return all;
}

Result<ForeignPrograms> ForeignPrograms::fill_lookup(const Netns& netns) {
  ForeignPrograms all;
  // The kernel's limit is 64 (netns_bpf_max_progs()).
  for (int i = 0; i < 1000; ++i) {
    auto status = all.add_lookup(netns);
    if (status) continue;
    if (status.error().code.value() == E2BIG) return all;
    return tl::unexpected(std::move(status).error());
  }
  return fail("a namespace takes any number of sk_lookup programs");
}

ForeignPrograms::~ForeignPrograms() {
  for (auto& one : attached_) {
    // Links end with their descriptor.
    if (!one.link && one.program)
      (void)::bpf_prog_detach2(one.program.get(), one.target.get(),
                               one.type);  // goes with the cgroup
  }
}

Result<std::vector<std::string>> ForeignPrograms::missing() const {
  std::vector<std::string> gone;
  for (const auto& one : attached_) {
    auto ids = query(one.target.get(), one.type);
    if (!ids) return context(ids.error(), one.hook);
    if (std::find(ids->begin(), ids->end(), one.id) == ids->end()) gone.push_back(one.hook);
  }
  return gone;
}

Result<std::map<std::string, std::vector<std::uint32_t>>> cgroup_programs(
    const std::string& cgroup) {
  auto target = open_directory(cgroup);
  if (!target) return tl::unexpected(target.error());
  std::map<std::string, std::vector<std::uint32_t>> all;
  for (const auto& hook : kHooks) {
    auto ids = query(target->get(), hook.type);
    if (!ids) return context(ids.error(), hook.name);
    if (!ids->empty()) all[hook.name] = *ids;
  }
  return all;
}

Result<std::vector<std::uint32_t>> lookup_programs(const Netns& netns) {
  auto target = netns.open();
  if (!target) return tl::unexpected(target.error());
  return query(target->get(), BPF_SK_LOOKUP);
}

}  // namespace mesh::test
