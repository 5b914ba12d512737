// SPDX-License-Identifier: Apache-2.0
#include "agent/bpf/programs.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>

#include "agent/base/log.h"
#include "agent/bpf/probe.h"
#include "mesh.skel.h"
#include "mesh/flow.h"

namespace mesh::bpf {
namespace {

constexpr const char* kRecvLink = "mesh_recv";

// libbpf's own messages, one level down: what matters comes back as an error.
int print_libbpf(enum libbpf_print_level level, const char* format, va_list args) {
  if (!spdlog::should_log(spdlog::level::debug) || level == LIBBPF_DEBUG) return 0;
  char line[1024];
  int n = std::vsnprintf(line, sizeof line, format, args);
  while (n > 0 && n < static_cast<int>(sizeof line) && line[n - 1] == '\n') line[--n] = '\0';
  log::debug("{}", line);
  return 0;
}

// The generation of the pinned runtime map plus one; 1 on a fresh start.
std::uint64_t next_generation(const std::filesystem::path& pinned_runtime) {
  UniqueFd fd(bpf_obj_get(pinned_runtime.c_str()));
  mesh_runtime runtime{};
  const __u32 zero = 0;
  if (fd && bpf_map_lookup_elem(fd.get(), &zero, &runtime) == 0) return runtime.generation + 1;
  return 1;
}

Result<bpf_link_info> link_info(int fd) {
  bpf_link_info info{};
  __u32 length = sizeof info;
  if (bpf_obj_get_info_by_fd(fd, &info, &length) != 0)
    return fail_errno(errno, "read a link's info");
  return info;
}

// The id that the kernel gives a cgroup v2 directory: its inode number (64 bit kernels).
Result<std::uint64_t> cgroup_id(int cgroup_fd) {
  struct stat st {};
  if (::fstat(cgroup_fd, &st) != 0) return fail_errno(errno, "stat the cgroup root");
  return static_cast<std::uint64_t>(st.st_ino);
}

Result<std::vector<std::byte>> read_all(int iterator_link) {
  UniqueFd fd(bpf_iter_create(iterator_link));
  if (!fd) return fail_errno(errno, "start the socket iterator");
  std::vector<std::byte> all;
  std::byte chunk[16384];
  for (;;) {
    const ssize_t n = ::read(fd.get(), chunk, sizeof chunk);
    if (n == 0) return all;
    if (n < 0) {
      if (errno == EINTR || errno == EAGAIN) continue;
      return fail_errno(errno, "read the socket iterator");
    }
    all.insert(all.end(), chunk, chunk + n);
  }
}

}  // namespace

void SkeletonDeleter::operator()(mesh_bpf* skeleton) const noexcept { mesh_bpf::destroy(skeleton); }

Result<Programs> Programs::open(const Options& options, FormerAgent former) {
  libbpf_set_print(print_libbpf);
  const bool taking_over = former.lock.valid();
  auto pins = Pins::open(options.pin_dir, std::move(former.lock));
  if (!pins) return tl::unexpected(std::move(pins).error());
  const bool fresh = !pins->adopted();
  Programs programs(std::move(*pins));
  programs.taking_over_ = taking_over;
  if (taking_over) programs.generation_ = former.generation;
  auto run = [&]() -> Status {
    MESH_TRY(programs.load(options), "load the BPF programs");
    MESH_TRY(programs.attach_cgroup(), "attach to cgroup " + options.cgroup_root.string());
    MESH_TRY(programs.attach_sockmap(), "attach the sockmap program");
    MESH_TRY(programs.attach_tracing(), "attach the receive tracker");
    return programs.prepare_iterators();
  };
  if (auto status = run(); !status) {
    programs.undo_new_pins();
    if (fresh) {
      // Maps without programs would look like an agent to adopt.
      programs = Programs(Pins{});
      (void)Pins::cleanup(options.pin_dir);  // the first error is the one to tell
    }
    return tl::unexpected(std::move(status).error());
  }
  return programs;
}

void Programs::undo_new_pins() {
  for (const auto& name : new_links_) (void)::unlink(pins_.link(name).c_str());
  held_.clear();
}

Status Programs::hold(const std::string& name, int link) {
  UniqueFd copy(::fcntl(link, F_DUPFD_CLOEXEC, 0));
  if (!copy) return fail_errno(errno, fmt::format("hold link {}", name));
  held_[name] = std::move(copy);
  return {};
}

Status Programs::load(const Options& options) {
  skeleton_.reset(mesh_bpf::open());
  if (!skeleton_) return fail_errno(errno, "open the embedded BPF object");

  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, skeleton_->obj) {
    if (bpf_map__is_internal(map)) continue;
    if (bpf_map__set_pin_path(map, pins_.map(bpf_map__name(map)).c_str()) != 0)
      return fail_errno(errno, fmt::format("set the pin path of map {}", bpf_map__name(map)));
  }
  cgroup_.reset(::open(options.cgroup_root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!cgroup_) return fail_errno(errno, "open cgroup " + options.cgroup_root.string());
  auto id = cgroup_id(cgroup_.get());
  if (!id) return tl::unexpected(std::move(id).error());
  cgroup_id_ = *id;
  if (!taking_over_) generation_ = next_generation(pins_.map("mesh_runtime"));
  skeleton_->rodata->mesh_generation = generation_;
  // What an earlier agent's services wanted, until there are some of ours.
  const auto egress = pins_.link(bpf_program__name(skeleton_->progs.mesh_skb_egress));
  skeleton_->bss->mesh_sniffs = UniqueFd(bpf_obj_get(egress.c_str())).valid() ? 1 : 0;

  auto tracing =
      options.disable_tracing ? Status(fail("switched off by --disable-tracing")) : probe_tracing();
  if (!tracing) {
    bpf_program__set_autoload(skeleton_->progs.mesh_recv, false);
    degraded_.push_back(
        {"sockmap",
         tracing.error().what + ": services with mesh-acceleration = \"sockmap\" go by TCP"});
  }
  if (const int code = mesh_bpf::load(skeleton_.get()); code != 0) {
    const int errnum = -code;
    if (errnum == EPERM || errnum == EACCES)
      return fail_errno(
          errnum,
          "the kernel refused a program or map (needs root, or CAP_BPF, CAP_NET_ADMIN and "
          "CAP_PERFMON; see `mesh-agent preflight`)");
    if (errnum == EINVAL)
      return fail_errno(
          errnum,
          "a pinned map does not fit this version, or the kernel is too old: see `mesh-agent "
          "preflight` and `mesh-agent cleanup`");
    return fail_errno(errnum, "load");
  }
  return {};
}

std::uint32_t Programs::maps_id() const {
  bpf_map_info info{};
  __u32 length = sizeof info;
  if (bpf_obj_get_info_by_fd(bpf_map__fd(skeleton_->maps.mesh_socks), &info, &length) != 0)
    return 0;
  return info.id;
}

std::vector<ProgramInfo> Programs::verified() const {
  std::vector<ProgramInfo> all;
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, skeleton_->obj) {
    const int fd = bpf_program__fd(program);
    bpf_prog_info info{};
    __u32 length = sizeof info;
    if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &length) != 0) continue;
    all.push_back({bpf_program__name(program), info.verified_insns});
  }
  return all;
}

Status Programs::attach_cgroup() {
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, skeleton_->obj) {
    const auto type = bpf_program__type(program);
    if (type != BPF_PROG_TYPE_CGROUP_SOCK_ADDR && type != BPF_PROG_TYPE_SOCK_OPS &&
        type != BPF_PROG_TYPE_CGROUP_SKB)
      continue;
    if (program == skeleton_->progs.mesh_skb_egress) {
      // Only brought up to date here; whether it is needed, the services say.
      UniqueFd pinned(bpf_obj_get(pins_.link(bpf_program__name(program)).c_str()));
      if (!pinned) continue;
    }
    if (auto status = attach_cgroup_program(program); !status)
      return context(std::move(status).error(), bpf_program__name(program));
  }
  return {};
}

Status Programs::attach_cgroup_program(bpf_program* program) {
  const std::string name = bpf_program__name(program);
  const auto path = pins_.link(name);
  UniqueFd pinned(bpf_obj_get(path.c_str()));
  if (pinned) {
    auto info = link_info(pinned.get());
    if (info && info->cgroup.cgroup_id == cgroup_id_) {
      if (bpf_link_update(pinned.get(), bpf_program__fd(program), nullptr) != 0)
        return fail_errno(errno, "put the new program in place of the pinned one");
      return hold(name, pinned.get());
    }
    if (taking_over_)
      return fail("the running mesh-agent is attached to another cgroup: give its --cgroup-root");
    // The cgroup is gone or another one: the old link serves nobody that this agent manages.
    if (::unlink(path.c_str()) != 0)
      return fail_errno(errno, fmt::format("unpin {}", path.string()));
  }
  std::unique_ptr<bpf_link, decltype(&bpf_link__destroy)> link(
      bpf_program__attach_cgroup(program, cgroup_.get()), bpf_link__destroy);
  if (!link) {
    if (errno == EBADF || errno == EINVAL)
      return fail_errno(errno, "attach (is it a cgroup v2 directory?)");
    return fail_errno(errno, "attach");
  }
  if (bpf_link__pin(link.get(), path.c_str()) != 0)
    return fail_errno(errno, fmt::format("pin {}", path.string()));
  new_links_.push_back(name);
  return hold(name, bpf_link__fd(link.get()));
}

Status Programs::attach_sniffer() {
  // Before the first socket that sniffs, whose answers must not pass unseen. For good: sockets that
  // are open when the last such service goes are read on.
  skeleton_->bss->mesh_sniffs = 1;
  if (auto status = attach_cgroup_program(skeleton_->progs.mesh_skb_egress); !status)
    return context(std::move(status).error(), "attach the HTTP sniffer");
  return {};
}

Status Programs::detach_sniffer() {
  const std::string name = bpf_program__name(skeleton_->progs.mesh_skb_egress);
  if (::unlink(pins_.link(name).c_str()) != 0 && errno != ENOENT)
    return fail_errno(errno, "detach the HTTP sniffer");
  held_.erase(name);
  return {};
}

Status Programs::attach_sockmap() {
  // Without the receive tracker nothing may be redirected, and membership alone changes how sockets
  // read.
  if (!bpf_program__autoload(skeleton_->progs.mesh_recv)) return {};
  // 6.1 has no link for this attach type. Attaching again replaces the program of an earlier agent.
  if (bpf_prog_attach(bpf_program__fd(skeleton_->progs.mesh_msg),
                      bpf_map__fd(skeleton_->maps.mesh_accel), BPF_SK_MSG_VERDICT, 0) != 0)
    return fail_errno(errno, "attach");
  return {};
}

// Tracing links cannot be updated in place: the new one is attached beside the old, which stops
// acting when the generation in the runtime map moves on, and is then unpinned.
Status Programs::attach_tracing() {
  const auto path = pins_.link(kRecvLink);
  if (bpf_program__autoload(skeleton_->progs.mesh_recv)) {
    std::unique_ptr<bpf_link, decltype(&bpf_link__destroy)> link(
        bpf_program__attach(skeleton_->progs.mesh_recv), bpf_link__destroy);
    if (!link) return fail_errno(errno, "attach");
    const auto fresh = pins_.link(std::string(kRecvLink) + "_new");
    (void)::unlink(fresh.c_str());  // left by an agent that died right here
    if (bpf_link__pin(link.get(), fresh.c_str()) != 0) return fail_errno(errno, "pin");
    new_links_.push_back(std::string(kRecvLink) + "_new");
    MESH_TRY(hold(kRecvLink, bpf_link__fd(link.get())), "attach");
    return taking_over_ ? Status() : commit_generation();
  }
  if (!taking_over_ && ::unlink(path.c_str()) != 0 && errno != ENOENT)
    return fail_errno(errno, "unpin the old tracker");
  return {};
}

Status Programs::commit_generation() {
  taking_over_ = false;
  const auto path = pins_.link(kRecvLink);
  if (!bpf_program__autoload(skeleton_->progs.mesh_recv)) {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT)
      return fail_errno(errno, "unpin the old tracker");
    return {};
  }
  mesh_runtime runtime{};
  const __u32 zero = 0;
  const int fd = bpf_map__fd(skeleton_->maps.mesh_runtime);
  if (bpf_map_lookup_elem(fd, &zero, &runtime) != 0)
    return fail_errno(errno, "read the runtime map");
  runtime.generation = generation_;
  if (bpf_map_update_elem(fd, &zero, &runtime, BPF_ANY) != 0)
    return fail_errno(errno, "write the runtime map");
  const auto fresh = pins_.link(std::string(kRecvLink) + "_new");
  if (::rename(fresh.c_str(), path.c_str()) != 0) return fail_errno(errno, "move the pin");
  if (!new_links_.empty()) new_links_.back() = kRecvLink;
  return {};
}

bpf_program* Programs::program_of(const std::string& link) const {
  if (link.rfind(kNetnsPrefix, 0) == 0) return skeleton_->progs.mesh_inbound;
  return bpf_object__find_program_by_name(skeleton_->obj, link.c_str());
}

Status Programs::reclaim() {
  // The successor may have put other intentions in force: look, until somebody has.
  skeleton_->bss->mesh_policy_open = 0;
  (void)::unlink(pins_.link(std::string(kRecvLink) + "_new").c_str());
  for (const auto& [name, link] : held_) {
    if (name == kRecvLink) continue;  // not touched before the generation is committed
    bpf_program* program = program_of(name);
    if (program == nullptr || bpf_link_update(link.get(), bpf_program__fd(program), nullptr) != 0)
      return fail_errno(errno, fmt::format("put {} back", name));
  }
  return attach_sockmap();
}

Status Programs::prepare_iterators() {
  bpf_iter_link_info target{};
  target.map.map_fd = static_cast<__u32>(bpf_map__fd(skeleton_->maps.mesh_socks));
  LIBBPF_OPTS(bpf_link_create_opts, opts);
  opts.iter_info = &target;
  opts.iter_info_len = sizeof target;
  for (auto [program, link] : {std::pair{skeleton_->progs.mesh_iter_fold, &fold_link_},
                               std::pair{skeleton_->progs.mesh_iter_conns, &connections_link_},
                               std::pair{skeleton_->progs.mesh_iter_cookies, &cookies_link_}}) {
    link->reset(bpf_link_create(bpf_program__fd(program), 0, BPF_TRACE_ITER, &opts));
    if (!*link)
      return fail_errno(errno, fmt::format("attach iterator {}", bpf_program__name(program)));
  }
  return {};
}

Status Programs::attach_inbound(std::uint64_t netns_cookie, int netns_fd) {
  const std::string name = kNetnsPrefix + std::to_string(netns_cookie);
  const auto path = pins_.link(name);
  const int program = bpf_program__fd(skeleton_->progs.mesh_inbound);
  UniqueFd pinned(bpf_obj_get(path.c_str()));
  if (pinned) {
    if (bpf_link_update(pinned.get(), program, nullptr) == 0) return hold(name, pinned.get());
    if (::unlink(path.c_str()) != 0)
      return fail_errno(errno, fmt::format("unpin {}", path.string()));
  }
  UniqueFd link(bpf_link_create(program, netns_fd, BPF_SK_LOOKUP, nullptr));
  if (!link) return fail_errno(errno, "attach sk_lookup to the workload's namespace");
  if (bpf_obj_pin(link.get(), path.c_str()) != 0)
    return fail_errno(errno, fmt::format("pin {}", path.string()));
  held_[name] = std::move(link);
  return {};
}

Status Programs::detach_inbound(std::uint64_t netns_cookie) {
  const std::string name = kNetnsPrefix + std::to_string(netns_cookie);
  const auto path = pins_.link(name);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT)
    return fail_errno(errno, fmt::format("unpin {}", path.string()));
  held_.erase(name);
  return {};
}

// Maps first: who adopts links finds their maps.
Result<std::size_t> Programs::restore_pins() {
  if (auto status = pins_.restore_directories(); !status)
    return tl::unexpected(std::move(status).error());
  std::size_t made = 0;
  const auto pin = [&made](const std::filesystem::path& path, int fd) -> Status {
    if (::access(path.c_str(), F_OK) == 0) return {};
    if (bpf_obj_pin(fd, path.c_str()) != 0)
      return fail_errno(errno, fmt::format("pin {}", path.string()));
    ++made;
    return {};
  };
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, skeleton_->obj) {
    if (bpf_map__is_internal(map)) continue;
    if (auto status = pin(pins_.map(bpf_map__name(map)), bpf_map__fd(map)); !status)
      return tl::unexpected(std::move(status).error());
  }
  for (const auto& [name, link] : held_)
    if (auto status = pin(pins_.link(name), link.get()); !status)
      return tl::unexpected(std::move(status).error());
  return made;
}

std::vector<std::uint64_t> Programs::inbound_namespaces() {
  std::vector<std::uint64_t> cookies;
  for (const auto& name : pins_.link_names()) {
    if (name.rfind(kNetnsPrefix, 0) != 0) continue;
    std::uint64_t cookie = 0;
    const char* digits = name.c_str() + std::char_traits<char>::length(kNetnsPrefix);
    if (std::from_chars(digits, name.c_str() + name.size(), cookie).ec != std::errc{}) continue;
    UniqueFd link(bpf_obj_get(pins_.link(name).c_str()));
    auto info = link ? link_info(link.get()) : Result<bpf_link_info>(fail("no link"));
    // The kernel detaches the link when its namespace dies; only the pin is left then. A link that
    // cannot be asked protects somebody, as far as anyone knows.
    if (info && info->netns.netns_ino == 0) {
      (void)detach_inbound(cookie);
      continue;
    }
    cookies.push_back(cookie);
  }
  return cookies;
}

Result<std::vector<std::byte>> Programs::run_fold_iterator() const {
  return read_all(fold_link_.get());
}

Result<std::vector<std::byte>> Programs::run_connections_iterator() const {
  return read_all(connections_link_.get());
}

Result<std::vector<std::byte>> Programs::run_cookies_iterator() const {
  return read_all(cookies_link_.get());
}

}  // namespace mesh::bpf
