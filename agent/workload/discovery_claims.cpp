// SPDX-License-Identifier: Apache-2.0
// The half of discovery that decides who owns an address and tells the rest of the agent.
#include <algorithm>
#include <deque>
#include <utility>

#include "agent/base/log.h"
#include "agent/base/netns.h"
#include "agent/workload/discovery_impl.h"

namespace mesh::workload {
namespace {

bool link_local(const Address& address) {
  const auto& bytes = address.bytes();
  if (address.is_v4()) return bytes[12] == 169 && bytes[13] == 254;
  return bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80;
}

}  // namespace

// Notes what a namespace holds; true when that differs from before.
bool Discovery::Impl::take(Namespace& ns, const std::vector<Address>& addresses) {
  std::vector<Address> held;
  bool has_ipv4_loopback = false;
  bool has_ipv6_loopback = false;
  for (const Address& address : addresses) {
    if (address.is_loopback()) (address.is_v4() ? has_ipv4_loopback : has_ipv6_loopback) = true;
    if (address.is_loopback() || link_local(address)) continue;
    if (std::any_of(options_.node_cidrs.begin(), options_.node_cidrs.end(),
                    [&](const Cidr& cidr) { return cidr.contains(address); }))
      held.push_back(address);
  }
  // Cut before sorting: what is there longest stays, the kernel lists in the order of adding.
  if (held.size() > options_.max_addresses) {
    held.resize(options_.max_addresses);
    if (!std::exchange(ns.addresses_over_limit, true)) {
      ++counters_.addresses_over_limit_total;
      log::warn("{} holds more than {} addresses of the node: the others are not enrolled",
                describe(ns.cookie), options_.max_addresses);
    }
  } else {
    ns.addresses_over_limit = false;
  }
  std::sort(held.begin(), held.end());
  held.erase(std::unique(held.begin(), held.end()), held.end());  // on two interfaces
  bool changed = held != ns.held || has_ipv4_loopback != ns.has_ipv4_loopback ||
                 has_ipv6_loopback != ns.has_ipv6_loopback;
  ns.held = std::move(held);
  ns.has_ipv4_loopback = has_ipv4_loopback;
  ns.has_ipv6_loopback = has_ipv6_loopback;
  return changed;
}

void Discovery::Impl::apply(Namespace& ns) {
  if (ns.over_limit) {
    // Out until settle_over_limit() finds room, unless it no longer wants in.
    if (!ns.held.empty()) return;
    ns.over_limit = false;
    --counters_.over_limit;
  }
  claim(ns.cookie, ns.held);
}

void Discovery::Impl::claim(std::uint64_t holder, const std::vector<Address>& wanted) {
  std::deque<std::pair<std::uint64_t, std::vector<Address>>> work{{holder, wanted}};
  while (!work.empty()) {
    auto [cookie, addresses] = std::move(work.front());
    work.pop_front();
    auto change = claims_.set(cookie, addresses);
    for (const auto& refusal : change.refused) {
      pending_conflicts_.push_back({refusal.address, refusal.holder, counters_.scans_total});
      processes_wanted_ = true;  // the owner may be dead by now
      kick(std::chrono::milliseconds(1));
    }
    publish(cookie);
    // Only now, when the old owner has been told, does the next one hear of it.
    for (std::uint64_t next : change.promoted) publish(next);
    // Whoever found no room below max_workloads must not keep the address from others.
    change.promoted.push_back(cookie);
    for (std::uint64_t id : change.promoted) {
      const Namespace* ns = find(id);
      if (ns && ns->over_limit && !claims_.owned(id).empty())
        work.emplace_back(id, std::vector<Address>{});
    }
  }
}

// Compares what a namespace owns with what was told, and tells the difference.
void Discovery::Impl::publish(std::uint64_t holder) {
  if (holder == host_cookie_) {
    publish_host();
    return;
  }
  Namespace* ns = find(holder);
  if (!ns) return;
  auto owned = claims_.owned(holder);
  if (owned.empty()) {
    if (!ns->published) return;
    ns->published.reset();
    --counters_.workloads;
    ++counters_.gone_total;
    if (callbacks_.on_gone) callbacks_.on_gone(holder);
    return;
  }
  if (!ns->published && counters_.workloads >= options_.max_workloads) {
    if (std::exchange(ns->over_limit, true)) return;
    ++counters_.over_limit;
    ++counters_.over_limit_total;
    if (!std::exchange(over_limit_warned_, true))
      log::warn(
          "more than {} workloads: {} and later ones are not enrolled, their traffic to the "
          "mesh stays refused",
          options_.max_workloads, describe(holder));
    return;
  }
  Workload now{holder,
               ns->inode,
               std::move(owned),
               ns->has_ipv4_loopback,
               ns->has_ipv6_loopback,
               references_->hint(ns->inode)};
  if (!ns->published) {
    ns->published = std::move(now);
    ++counters_.workloads;
    ++counters_.found_total;
    if (callbacks_.on_found) callbacks_.on_found(*ns->published);
    return;
  }
  if (now.hint.empty()) now.hint = ns->published->hint;
  bool told = now.addresses == ns->published->addresses &&
              now.has_ipv4_loopback == ns->published->has_ipv4_loopback &&
              now.has_ipv6_loopback == ns->published->has_ipv6_loopback;
  ns->published = std::move(now);
  if (told) return;
  ++counters_.changed_total;
  if (callbacks_.on_changed) callbacks_.on_changed(*ns->published);
}

void Discovery::Impl::publish_host() {
  auto owned = claims_.owned(host_cookie_);
  if (std::exchange(host_told_, true) && owned == host_addresses_) return;
  host_addresses_ = std::move(owned);
  if (callbacks_.on_host_addresses) callbacks_.on_host_addresses(host_addresses_);
}

// Nobody refers to it: lets the namespace go first, then tells.
void Discovery::Impl::drop(std::uint64_t cookie) {
  Namespace* ns = find(cookie);
  if (!ns) return;
  boost::system::error_code ignored;  // closing is all there is to do
  ns->socket.close(ignored);
  by_inode_.erase(ns->inode);
  if (std::exchange(ns->over_limit, false)) --counters_.over_limit;
  claim(cookie, {});
  namespaces_.erase(cookie);
}

void Discovery::Impl::settle_over_limit() {
  if (counters_.over_limit == 0) over_limit_warned_ = false;
  if (counters_.over_limit == 0 || counters_.workloads >= options_.max_workloads) return;
  for (auto& [cookie, ns] : namespaces_) {
    if (counters_.workloads >= options_.max_workloads) return;
    if (!std::exchange(ns->over_limit, false)) continue;
    --counters_.over_limit;
    claim(cookie, ns->held);
  }
}

// A pod that is replaced under the same address looks like a conflict until the old one is found
// dead, so only what outlives a scan, with no doubt left about the owner, is one.
void Discovery::Impl::report_conflicts() {
  std::erase_if(pending_conflicts_, [this](const PendingConflict& pending) {
    if (!claims_.waits(pending.holder, pending.address)) return true;
    std::uint64_t owner = claims_.owner(pending.address);
    Namespace* ns = find(owner);
    if (pending.scan == counters_.scans_total || (ns && ns->misses > 0)) return false;
    ++counters_.conflicts_total;
    log::warn("{} is held by {} and by {}: the first keeps it, the other is not enrolled for it",
              pending.address.to_string(), describe(owner), describe(pending.holder));
    return true;
  });
}

std::string Discovery::Impl::describe(std::uint64_t cookie) const {
  if (cookie == host_cookie_) return "the agent's own namespace";
  auto it = namespaces_.find(cookie);
  if (it == namespaces_.end()) return fmt::format("namespace {}", cookie);
  auto hint = references_->hint(it->second->inode);
  return fmt::format("namespace {} ({})", cookie, hint.empty() ? "no name" : hint);
}

Result<UniqueFd> Discovery::Impl::open_netns(std::uint64_t cookie) const {
  const Namespace* ns = nullptr;
  if (host_ && cookie == host_cookie_)
    ns = host_.get();
  else if (auto it = namespaces_.find(cookie); it != namespaces_.end())
    ns = it->second.get();
  if (!ns || !ns->socket.is_open()) return fail("no namespace with cookie {} is watched", cookie);
  // native_handle() is not const because it lets its user do anything; this only asks.
  auto& socket = const_cast<boost::asio::posix::stream_descriptor&>(ns->socket);
  return netns_of_socket(socket.native_handle());
}

std::vector<Workload> Discovery::Impl::workloads() const {
  std::vector<Workload> all;
  for (const auto& [cookie, ns] : namespaces_)
    if (ns->published) all.push_back(*ns->published);
  return all;
}

Counters Discovery::Impl::counters() const {
  Counters now = counters_;
  now.namespaces = namespaces_.size();
  now.conflicts = claims_.waiting();
  if (references_) {
    now.processes = references_->processes();
    now.processes_unreadable = references_->unreadable();
  }
  return now;
}

}  // namespace mesh::workload
