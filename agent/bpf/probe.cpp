// SPDX-License-Identifier: Apache-2.0
#include "agent/bpf/probe.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>

#include "agent/base/address.h"
#include "agent/base/unique_fd.h"

namespace mesh::bpf {
namespace {

#ifndef SOL_TLS
constexpr int SOL_TLS = 282;
#endif

// A program of this machine's word order that returns `value`.
std::array<bpf_insn, 2> returning(int value) {
  bpf_insn move{}, exit{};
  move.code = BPF_ALU64 | BPF_MOV | BPF_K;
  move.dst_reg = BPF_REG_0;
  move.imm = value;
  exit.code = BPF_JMP | BPF_EXIT;
  return {move, exit};
}

Result<UniqueFd> load(bpf_prog_type type, bpf_attach_type attach, int btf_id, int value) {
  const auto body = returning(value);
  LIBBPF_OPTS(bpf_prog_load_opts, opts);
  opts.expected_attach_type = attach;
  opts.attach_btf_id = static_cast<__u32>(btf_id);
  UniqueFd fd(bpf_prog_load(type, "mesh_probe", "Dual BSD/GPL", body.data(), body.size(), &opts));
  if (!fd) return fail_errno(errno, "the kernel refuses it");
  return fd;
}

Status try_load(bpf_prog_type type, bpf_attach_type attach) {
  if (auto fd = load(type, attach, 0, 1); !fd) return tl::unexpected(std::move(fd).error());
  return {};
}

Status try_iterator() {
  const int id = libbpf_find_vmlinux_btf_id("bpf_sk_storage_map", BPF_TRACE_ITER);
  if (id < 0) return fail_errno(-id, "the kernel's BTF has no bpf_iter_bpf_sk_storage_map");
  if (auto fd = load(BPF_PROG_TYPE_TRACING, BPF_TRACE_ITER, id, 0); !fd)
    return tl::unexpected(std::move(fd).error());
  return {};
}

struct Pair {
  UniqueFd client, server;
};

// In the namespace of this process; the listener takes any port of 127.0.0.1.
Result<Pair> connected_pair() {
  UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  Pair pair{UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), {}};
  if (!listener || !pair.client) return fail_errno(errno, "socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (::bind(listener.get(), generic, length) != 0 || ::listen(listener.get(), 1) != 0 ||
      ::getsockname(listener.get(), generic, &length) != 0 ||
      ::connect(pair.client.get(), generic, length) != 0)
    return fail_errno(errno, "connect two sockets by loopback (is lo up?)");
  pair.server.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!pair.server) return fail_errno(errno, "accept");
  return pair;
}

std::string program_name(__u32 id) {
  UniqueFd fd(bpf_prog_get_fd_by_id(id));
  bpf_prog_info info{};
  __u32 length = sizeof info;
  // It may be gone since it was listed.
  if (!fd || bpf_obj_get_info_by_fd(fd.get(), &info, &length) != 0) return fmt::format("id {}", id);
  return info.name[0] != '\0' ? info.name : fmt::format("id {}", id);
}

}  // namespace

Status probe_tracing() {
  const int id = libbpf_find_vmlinux_btf_id("tcp_bpf_recvmsg", BPF_TRACE_FEXIT);
  if (id < 0) return fail_errno(-id, "the kernel's BTF has no tcp_bpf_recvmsg");
  auto program = load(BPF_PROG_TYPE_TRACING, BPF_TRACE_FEXIT, id, 0);
  if (!program) return context(std::move(program).error(), "fexit program");
  UniqueFd link(bpf_raw_tracepoint_open(nullptr, program->get()));
  if (!link) return fail_errno(errno, "the kernel refuses to attach fexit programs");
  return {};
}

std::vector<Trial> trial_loads() {
  std::vector<Trial> all;
  all.push_back(
      {"cgroup/connect4", try_load(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_CONNECT)});
  all.push_back({"cgroup_skb", try_load(BPF_PROG_TYPE_CGROUP_SKB, BPF_CGROUP_INET_INGRESS)});
  all.push_back({"sockops", try_load(BPF_PROG_TYPE_SOCK_OPS, BPF_CGROUP_SOCK_OPS)});
  all.push_back({"sk_lookup", try_load(BPF_PROG_TYPE_SK_LOOKUP, BPF_SK_LOOKUP)});
  all.push_back({"sk_msg", try_load(BPF_PROG_TYPE_SK_MSG, BPF_SK_MSG_VERDICT)});
  all.push_back({"iter/bpf_sk_storage_map", try_iterator()});
  return all;
}

Result<KernelTls> probe_kernel_tls() {
  auto pair = connected_pair();
  if (!pair) return tl::unexpected(std::move(pair).error());
  UniqueFd map(bpf_map_create(BPF_MAP_TYPE_SOCKHASH, "mesh_probe", sizeof(__u32), sizeof(__u64), 1,
                              nullptr));
  if (!map) return fail_errno(errno, "make a sockhash");
  const __u32 key = 0;
  const __u64 socket = static_cast<__u64>(pair->client.get());
  if (bpf_map_update_elem(map.get(), &key, &socket, BPF_ANY) != 0)
    return fail_errno(errno, "put a socket into a sockhash");
  if (::setsockopt(pair->client.get(), IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") != 0) {
    if (errno == ENOENT) return KernelTls::Missing;
    return fail_errno(errno, "setsockopt TCP_ULP");
  }
  tls12_crypto_info_aes_gcm_128 crypto{};
  crypto.info.version = TLS_1_3_VERSION;
  crypto.info.cipher_type = TLS_CIPHER_AES_GCM_128;
  if (::setsockopt(pair->client.get(), SOL_TLS, TLS_TX, &crypto, sizeof crypto) == 0)
    return KernelTls::Combined;
  if (errno == EINVAL) return KernelTls::Exclusive;
  return fail_errno(errno, "setsockopt TLS_TX");
}

Result<std::vector<AttachedProgram>> attached_programs(const std::filesystem::path& cgroup_root) {
  UniqueFd cgroup(::open(cgroup_root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!cgroup) return fail_errno(errno, fmt::format("open {}", cgroup_root.string()));
  constexpr std::pair<bpf_attach_type, const char*> kHooks[] = {
      {BPF_CGROUP_INET4_CONNECT, "connect4"},
      {BPF_CGROUP_INET6_CONNECT, "connect6"},
      {BPF_CGROUP_INET4_GETPEERNAME, "getpeername4"},
      {BPF_CGROUP_INET6_GETPEERNAME, "getpeername6"},
      {BPF_CGROUP_INET4_GETSOCKNAME, "getsockname4"},
      {BPF_CGROUP_INET6_GETSOCKNAME, "getsockname6"},
      {BPF_CGROUP_SOCK_OPS, "sock_ops"},
      {BPF_CGROUP_INET_INGRESS, "ingress"},
      {BPF_CGROUP_INET_EGRESS, "egress"},
  };
  std::vector<AttachedProgram> all;
  for (const auto& [type, hook] : kHooks) {
    __u32 ids[64];  // the kernel's own limit for one cgroup and hook
    __u32 count = std::size(ids);
    if (bpf_prog_query(cgroup.get(), type, 0, nullptr, ids, &count) != 0)
      return fail_errno(errno,
                        fmt::format("list the {} programs of {}", hook, cgroup_root.string()));
    for (__u32 i = 0; i < count; ++i) all.push_back({hook, program_name(ids[i])});
  }
  return all;
}

}  // namespace mesh::bpf
