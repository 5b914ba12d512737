// SPDX-License-Identifier: Apache-2.0
#include "agent/workload/discovery.h"

#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "agent/base/log.h"
#include "agent/base/netns.h"
#include "agent/workload/address_socket.h"
#include "agent/workload/discovery_impl.h"

namespace mesh::workload {
namespace {

using std::chrono::milliseconds;

// A second full listing this much later must agree before a namespace is called dead: a process
// that forks and exits can slip through one listing.
constexpr milliseconds kConfirm{20};
// Addresses of one namespace are listed at most this often, and for at most 1/20 of the time.
constexpr milliseconds kListGap{20};
constexpr int kListDuty = 20;
// The mount table likewise: image pulls change it hundreds of times a second.
constexpr milliseconds kMountsGap{20};
constexpr int kMountsDuty = 10;
// Each probe is a thread and a setns: a crowd of new namespaces is taken in slices.
constexpr std::size_t kProbesPerScan = 64;
constexpr milliseconds kProbeRetry{500};

}  // namespace

Discovery::Impl::Impl(boost::asio::io_context& io, Options options, Callbacks callbacks)
    : io_(io),
      options_(std::move(options)),
      callbacks_(std::move(callbacks)),
      tick_timer_(io),
      kick_timer_(io),
      mounts_(io) {}

Status Discovery::Impl::start() {
  if (started_) return fail("workload discovery was started before");
  started_ = true;
  auto references = References::open({});
  if (!references) return context(std::move(references).error(), "find network namespaces");
  references_.emplace(std::move(*references));
  MESH_TRY(start_host(), "watch the agent's own network namespace");
  int fd = ::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail_errno(errno, "watch the mount table");
  boost::system::error_code failed;
  mounts_.assign(fd, failed);
  if (failed) {
    (void)::close(fd);  // nothing was written
    return fail_errno(failed.value(), "watch the mount table");
  }
  arm_mounts();
  auto mounts = references_->refresh_mounts();
  if (!mounts) return context(std::move(mounts).error(), "find network namespaces");
  MESH_TRY(references_->refresh_processes(References::Depth::Full), "find network namespaces");
  scan(false, options_.max_namespaces);
  arm_tick();
  return {};
}

Status Discovery::Impl::start_host() {
  auto own = open_own_netns();
  if (!own) return tl::unexpected(std::move(own).error());
  auto inode = netns_inode(own->get());
  if (!inode) return tl::unexpected(std::move(inode).error());
  auto socket = open_address_socket(own->get());
  if (!socket) return tl::unexpected(std::move(socket).error());
  auto cookie = netns_cookie(socket->get());
  if (!cookie) return tl::unexpected(std::move(cookie).error());
  auto addresses = list_addresses(socket->get());
  if (!addresses) return tl::unexpected(std::move(addresses).error());
  ++counters_.dumps_total;
  auto host = adopt(std::move(*socket), *cookie, *inode);
  if (!host) return tl::unexpected(std::move(host).error());
  host_ = std::move(*host);
  host_cookie_ = *cookie;
  host_inode_ = *inode;
  (void)take(*host_, addresses->addresses);  // told in any case
  apply(*host_);
  watch(*host_);
  if (addresses->unsettled) want_list(*host_);
  return {};
}

void Discovery::Impl::stop() {
  started_ = stopped_ = true;
  callbacks_ = {};
  (void)tick_timer_.cancel();
  (void)kick_timer_.cancel();
  boost::system::error_code ignored;  // closing is all there is to do
  mounts_.close(ignored);
  namespaces_.clear();
  by_inode_.clear();
  host_.reset();
}

void Discovery::Impl::arm_tick() {
  (void)tick_timer_.expires_after(options_.tick);
  tick_timer_.async_wait([weak = weak_from_this()](boost::system::error_code ec) {
    auto self = weak.lock();
    if (!self || ec || self->stopped_) return;
    self->on_tick();
  });
}

// An edge can be lost between two waits (epoll asks the file twice and the file answers once);
// the tick asks a file of its own, so that costs at most one tick.
void Discovery::Impl::arm_mounts() {
  mounts_.async_wait(boost::asio::posix::stream_descriptor::wait_error,
                     [weak = weak_from_this()](boost::system::error_code ec) {
                       auto self = weak.lock();
                       if (!self || ec || self->stopped_) return;
                       self->arm_mounts();
                       self->mounts_changed_ = true;
                       self->kick(self->mounts_at_ - Clock::now());
                     });
}

void Discovery::Impl::kick(Clock::duration delay) {
  auto at = Clock::now() + std::max<Clock::duration>(delay, Clock::duration::zero());
  if (at >= kick_at_) return;
  kick_at_ = at;
  (void)kick_timer_.expires_at(at);  // cancels the later one
  kick_timer_.async_wait([weak = weak_from_this()](boost::system::error_code ec) {
    auto self = weak.lock();
    if (!self || ec || self->stopped_) return;
    self->on_kick();
  });
}

void Discovery::Impl::on_tick() {
  scan(true, kProbesPerScan);
  list_deferred();
  settle_over_limit();
  arm_tick();
}

void Discovery::Impl::on_kick() {
  kick_at_ = Clock::time_point::max();
  if (mounts_changed_ || processes_wanted_) scan(processes_wanted_, kProbesPerScan);
  list_deferred();
}

void Discovery::Impl::scan(bool processes, std::size_t max_probes) {
  auto begin = Clock::now();
  if (begin >= mounts_at_) {
    mounts_changed_ = false;
    if (auto changed = references_->refresh_mounts(); !changed)
      error_seen(changed.error(), "list the mounts");
    auto now = Clock::now();
    mounts_at_ = now + std::max<Clock::duration>(kMountsGap, (now - begin) * kMountsDuty);
  } else if (mounts_changed_) {
    kick(mounts_at_ - begin);
  }
  if (processes) {
    processes_wanted_ = false;
    if (auto status = references_->refresh_processes(References::Depth::Tick); !status)
      error_seen(status.error(), "list the processes");
  }
  if (drop_dead()) probe_new(max_probes);
  report_conflicts();
  ++counters_.scans_total;
  auto took = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - begin).count());
  counters_.scan_nanoseconds_total += took;
  counters_.scan_nanoseconds_last = took;
  counters_.scan_nanoseconds_max = std::max(counters_.scan_nanoseconds_max, took);
}

bool Discovery::Impl::drop_dead() {
  auto unreferred = [this](const auto& item) { return !references_->referred(item.second->inode); };
  if (std::none_of(namespaces_.begin(), namespaces_.end(), unreferred)) return true;
  // What the cache does not know of may still be there: a process that moved, a thread.
  if (auto status = references_->refresh_processes(References::Depth::Full); !status) {
    error_seen(status.error(), "list the processes");
    return false;
  }
  std::vector<std::uint64_t> dead;
  for (auto& [cookie, ns] : namespaces_) {
    if (references_->referred(ns->inode)) {
      ns->misses = 0;
    } else if (++ns->misses >= 2) {
      dead.push_back(cookie);
    } else {
      processes_wanted_ = true;
      kick(kConfirm);
    }
  }
  for (std::uint64_t cookie : dead) drop(cookie);
  return true;
}

void Discovery::Impl::probe_new(std::size_t max_probes) {
  auto inodes = references_->namespaces();
  auto now = Clock::now();
  std::erase_if(retry_at_, [&](const auto& item) {
    return !std::binary_search(inodes.begin(), inodes.end(), item.first);
  });
  std::vector<Namespace*> found;
  counters_.namespaces_unwatched = 0;
  for (ino_t inode : inodes) {
    if (inode == host_inode_ || by_inode_.contains(inode)) continue;
    if (auto retry = retry_at_.find(inode); retry != retry_at_.end() && retry->second > now)
      continue;
    if (namespaces_.size() >= options_.max_namespaces) {
      ++counters_.namespaces_unwatched;
      continue;
    }
    if (max_probes-- == 0) {
      processes_wanted_ = true;
      kick(milliseconds(1));
      break;
    }
    auto ns = probe(inode);
    if (!ns) {
      // Its references may have gone since they were listed: not worth a word, nor a wait.
      if (ns.error().code == std::errc::no_such_file_or_directory) continue;
      error_seen(ns.error(), fmt::format("look into net:[{}]", inode));
      retry_at_[inode] = now + kProbeRetry;
      continue;
    }
    retry_at_.erase(inode);
    ++counters_.namespaces_seen_total;
    found.push_back(ns->get());
    by_inode_[inode] = (*ns)->cookie;
    namespaces_[(*ns)->cookie] = std::move(*ns);
  }
  if (counters_.namespaces_unwatched > 0 && !std::exchange(unwatched_warned_, true))
    log::warn(
        "more than {} network namespaces: the others are not watched, their traffic to the "
        "mesh stays refused",
        options_.max_namespaces);
  std::sort(found.begin(), found.end(),
            [](const Namespace* a, const Namespace* b) { return a->cookie < b->cookie; });
  for (Namespace* ns : found) {
    watch(*ns);
    apply(*ns);
  }
}

Result<Discovery::Impl::NamespacePtr> Discovery::Impl::probe(ino_t inode) {
  Result<UniqueFd> socket = [&]() -> Result<UniqueFd> {
    auto netns = references_->open_namespace(inode);
    if (!netns) return netns;
    return open_address_socket(netns->get());
  }();  // the namespace's file is closed here; the socket holds it from now on
  if (!socket) return tl::unexpected(std::move(socket).error());
  auto cookie = netns_cookie(socket->get());
  if (!cookie) return tl::unexpected(std::move(cookie).error());
  if (*cookie == host_cookie_ || namespaces_.contains(*cookie))
    return fail("its cookie {} belongs to a namespace that is watched already", *cookie);
  auto addresses = list_addresses(socket->get());
  if (!addresses) return tl::unexpected(std::move(addresses).error());
  ++counters_.dumps_total;
  auto ns = adopt(std::move(*socket), *cookie, inode);
  if (!ns) return ns;
  (void)take(**ns, addresses->addresses);  // applied by the caller, in order of the cookies
  if (addresses->overrun) ++counters_.overruns_total;
  if (addresses->unsettled) {
    (*ns)->list_at = Clock::now() + kListGap;
    want_list(**ns);
  }
  return ns;
}

Result<Discovery::Impl::NamespacePtr> Discovery::Impl::adopt(UniqueFd socket, std::uint64_t cookie,
                                                             ino_t inode) {
  auto ns = std::make_unique<Namespace>(io_);
  boost::system::error_code failed;
  ns->socket.assign(socket.get(), failed);
  if (failed) return fail_errno(failed.value(), "watch an address socket");
  (void)socket.release();  // the descriptor closes it
  ns->cookie = cookie;
  ns->inode = inode;
  return ns;
}

void Discovery::Impl::watch(Namespace& ns) {
  ns.socket.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                       [weak = weak_from_this(), cookie = ns.cookie](boost::system::error_code ec) {
                         auto self = weak.lock();
                         if (!self || ec || self->stopped_) return;
                         self->on_readable(cookie);
                       });
}

void Discovery::Impl::on_readable(std::uint64_t cookie) {
  Namespace* ns = find(cookie);
  if (!ns) return;
  auto notifications = read_notifications(ns->socket.native_handle());
  if (!notifications) error_seen(notifications.error(), "read address changes");
  if (notifications && notifications->overrun) ++counters_.overruns_total;
  if (!notifications || notifications->changed) want_list(*ns);
  if (Namespace* still = find(cookie)) watch(*still);  // a callback may have stopped us
}

void Discovery::Impl::want_list(Namespace& ns) {
  auto now = Clock::now();
  if (!ns.list_wanted && now >= ns.list_at) {
    list(ns);
    return;
  }
  if (!std::exchange(ns.list_wanted, true)) deferred_.push_back(ns.cookie);
  kick(ns.list_at - now);
}

void Discovery::Impl::list(Namespace& ns) {
  auto begin = Clock::now();
  auto addresses = list_addresses(ns.socket.native_handle());
  ++counters_.dumps_total;
  auto now = Clock::now();
  ns.list_at = now + std::max<Clock::duration>(kListGap, (now - begin) * kListDuty);
  if (!addresses) {
    // What it held stays until a list succeeds.
    error_seen(addresses.error(), fmt::format("list the addresses of {}", describe(ns.cookie)));
    ns.list_at = std::max(ns.list_at, now + options_.tick);
    want_list(ns);
    return;
  }
  if (addresses->overrun) ++counters_.overruns_total;
  if (addresses->unsettled) want_list(ns);
  if (take(ns, addresses->addresses)) apply(ns);
}

void Discovery::Impl::list_deferred() {
  auto now = Clock::now();
  for (std::uint64_t cookie : std::exchange(deferred_, {})) {
    Namespace* ns = find(cookie);
    if (!ns || !ns->list_wanted) continue;
    if (ns->list_at > now) {
      deferred_.push_back(cookie);
      kick(ns->list_at - now);
      continue;
    }
    ns->list_wanted = false;
    list(*ns);
  }
}

// The state goes on as it was and the next tick tries again. Each is counted; the operator hears
// of the first, as some are normal (out of descriptors for a moment) and all repeat.
void Discovery::Impl::error_seen(const Error& error, std::string_view what) {
  ++counters_.scan_errors_total;
  if (!std::exchange(error_warned_, true))
    log::warn("{}: {} (more are counted only)", what, error.what);
  else
    log::debug("{}: {}", what, error.what);
}

Namespace* Discovery::Impl::find(std::uint64_t cookie) {
  if (host_ && cookie == host_cookie_) return host_.get();
  auto it = namespaces_.find(cookie);
  return it == namespaces_.end() ? nullptr : it->second.get();
}

Discovery::Discovery(boost::asio::io_context& io, Options options, Callbacks callbacks)
    : impl_(std::make_shared<Impl>(io, std::move(options), std::move(callbacks))) {}
Discovery::~Discovery() { impl_->stop(); }
Status Discovery::start() { return impl_->start(); }
void Discovery::stop() { impl_->stop(); }
Result<UniqueFd> Discovery::open_netns(std::uint64_t cookie) const {
  return impl_->open_netns(cookie);
}
std::vector<Workload> Discovery::workloads() const { return impl_->workloads(); }
const std::vector<Address>& Discovery::host_addresses() const { return impl_->host_addresses(); }
std::uint64_t Discovery::host_cookie() const { return impl_->host_cookie(); }
Counters Discovery::counters() const { return impl_->counters(); }

}  // namespace mesh::workload
