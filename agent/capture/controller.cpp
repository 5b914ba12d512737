// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/controller.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <utility>

#include "agent/base/log.h"
#include "agent/base/netns.h"
#include "agent/bpf/abi_convert.h"
#include "agent/capture/relay_dialer.h"

namespace mesh::capture {
namespace {

constexpr int kBacklog = 4096;
constexpr std::size_t kMostRetried = 64;  // workloads a second: at most some 50 ms

Endpoint loopback4() { return {*Address::parse("127.0.0.1"), MESH_PORT_OUTBOUND}; }
Endpoint loopback6() { return {*Address::parse("::1"), MESH_PORT_OUTBOUND}; }
// Every address: those that the workload is given later are served without another listener.
Endpoint mesh4() { return {*Address::parse("0.0.0.0"), MESH_PORT_MESH}; }
Endpoint mesh6() { return {*Address::parse("::"), MESH_PORT_MESH}; }

std::string inbound_of(const workload::Workload& workload) {
  return "the sk_lookup program of workload " + workload.hint;
}

}  // namespace

Controller::Controller(boost::asio::io_context& io, Options options, bpf::Datapath& datapath,
                       relay::Pool& relay)
    : io_(io),
      options_(std::move(options)),
      datapath_(datapath),
      relay_(relay),
      dialer_(std::make_shared<RelayDialer>(
          datapath, directory_,
          options_.mesh != nullptr ? options_.mesh->outbound(datapath, directory_) : nullptr)),
      inbound_dialer_(options_.mesh != nullptr
                          ? options_.mesh->inbound(datapath, directory_, policy_)
                          : nullptr),
      revoker_(datapath, relay, directory_, policy_,
               options_.mesh != nullptr ? options_.mesh->directory() : nullptr) {
  node_.node_cidrs = options_.node_cidrs;
  node_.vip_cidrs = {options_.vip_cidr4, options_.vip_cidr6};
  node_.sockmap_available = options_.sockmap_available;
  node_.name = options_.node_name;
  node_.datacenter = options_.datacenter;
  node_.mesh_cidrs = options_.mesh_cidrs;
  for (const auto& [label, name] : datapath_.names.content()) labels_.seed(label, name.name);
}

void Controller::seed_vips(catalog::VipAllocator& vips) const {
  for (const auto& [address, label] : datapath_.vips.content()) {
    auto name = datapath_.names.content().find(label);
    const Address v4 = bpf::from_abi(address);
    if (name == datapath_.names.content().end() || !v4.is_v4()) continue;
    if (auto status = vips.seed(name->second.name, v4); !status)
      log::warn("the VIP of an earlier run is not kept: {}", status.error().what);
  }
}

Status Controller::start() {
  if (options_.dns != nullptr) options_.dns->seed();
  // Nobody may talk to anybody before this; what an earlier agent put in force stays until the
  // first catalog.
  if (!datapath_.policy.current())
    MESH_TRY(datapath_.policy.set({options_.default_policy == policy::Verdict::Allow, {}}),
             "intentions");
  return {};
}

workload::Callbacks Controller::callbacks() {
  return {
      .on_found = [this](const workload::Workload& w) { on_found(w); },
      .on_changed = [this](const workload::Workload& w) { on_changed(w); },
      .on_gone = [this](std::uint64_t cookie) { on_gone(cookie); },
      .on_host_addresses =
          [this](const std::vector<Address>& addresses) {
            node_.host_addresses = addresses;  // sorted
            schedule_apply();
          },
  };
}

Status Controller::adopted_all() {
  ready_ = true;
  apply();
  if (!last_failure_.empty()) return fail("{}", last_failure_);
  // Only now: a pod that could not be enrolled may be alive, and while its address is still known
  // to be its own nothing but this program keeps anybody out.
  for (const auto cookie : datapath_.programs().inbound_namespaces())
    if (enrolled_.count(cookie) == 0)
      MESH_TRY(datapath_.programs().detach_inbound(cookie), "adopt");
  return {};
}

bool Controller::defer(std::function<void()> what) {
  if (frozen_) deferred_.push_back(std::move(what));
  return frozen_;
}

void Controller::thaw() {
  if (!frozen_) return;
  frozen_ = false;
  apply_all_ = true;
  // By the successor's maps others were let in.
  judged_.reset();
  judged_nodes_.reset();
  named_ = 0;
  for (auto& what : std::exchange(deferred_, {})) what();
  schedule_apply();
}

void Controller::on_found(const workload::Workload& workload) {
  if (defer([this, workload] { on_found(workload); })) return;
  Enrolled& enrolled = enrolled_[workload.cookie];
  enrolled.workload = workload;
  workloads_touched_ = true;
  if (auto status = enrol(enrolled); !status) {
    // It stays unclassified, so its mesh destinations are refused.
    const auto [waiting, first] = not_enrolled_.try_emplace(workload.cookie);
    waiting->second.workload = workload;
    if (first)
      log::error("workload {} ({}) is not enrolled, trying again: {}", workload.hint,
                 workload.addresses.front().to_string(), status.error().what);
    (void)relay_.drop_namespace(workload.cookie);  // a listener may exist already
    enrolled_.erase(workload.cookie);
    return;
  }
  if (const auto it = not_enrolled_.find(workload.cookie); it != not_enrolled_.end()) {
    if (!it->second.lost.empty()) {
      datapath_.count_reattached(inbound_of(workload));
      judge_again_ = true;  // what came in while nobody's program was there
    }
    not_enrolled_.erase(it);
  }
  std::vector<std::string> addresses;
  for (const auto& address : workload.addresses) addresses.push_back(address.to_string());
  log::info("workload found: {} {} (netns cookie {})", workload.hint, fmt::join(addresses, " "),
            workload.cookie);
  schedule_apply();
}

void Controller::retry_enrolment() {
  if (frozen_) return;  // the next second is soon enough
  const auto waiting = not_enrolled_;
  for (const auto& [cookie, one] : waiting) on_found(one.workload);
  keep_inbound();
  retry_listeners();
  // Nothing else may change for long, and meanwhile a denial may not be in force.
  if (!last_failure_.empty() && apply_again_.due(Backoff::Clock::now())) apply();
}

// A workload whose program cannot be had back could be reached by everybody, past all intentions.
// Unclassified it is reached by nobody, until it can be enrolled again.
void Controller::keep_inbound() {
  std::map<std::uint64_t, NotEnrolled> lost;
  for (const auto& [cookie, enrolled] : enrolled_) {
    if (!enrolled.handle || !datapath_.programs().inbound_detached(cookie)) continue;
    const std::string what = inbound_of(enrolled.workload);
    auto status = datapath_.programs().attach_inbound(cookie, enrolled.handle->fd.get());
    if (status) {
      datapath_.count_reattached(what);
      revoker_.wake();  // for what came in meanwhile
    } else {
      lost.emplace(cookie, NotEnrolled{enrolled.workload, what + ": " + status.error().what});
    }
  }
  for (auto& [cookie, one] : lost) {
    const auto reset = withdraw(cookie);
    log::error(
        "workload {} is cut off from the mesh until its sk_lookup program is back ({} "
        "relayed connections reset)",
        one.workload.hint, reset);
    not_enrolled_.insert_or_assign(cookie, std::move(one));
  }
  const auto first = std::find_if(not_enrolled_.begin(), not_enrolled_.end(),
                                  [](const auto& one) { return !one.second.lost.empty(); });
  datapath_.set_lost_inbound(first == not_enrolled_.end() ? "" : first->second.lost);
}

void Controller::retry_listeners() {
  const auto now = Backoff::Clock::now();
  std::size_t room = kMostRetried;
  for (auto& [cookie, enrolled] : enrolled_) {
    if (enrolled.missing.empty() || !enrolled.retry.due(now)) continue;
    if (room-- == 0) break;
    open_listeners(enrolled, enrolled.handle->fd.get());
  }
}

const Controller::Missing& Controller::missing_listeners(std::uint64_t netns_cookie) const {
  static const Missing kNone;
  auto it = enrolled_.find(netns_cookie);
  return it == enrolled_.end() ? kNone : it->second.missing;
}

std::size_t Controller::missing_listeners() const {
  std::size_t count = 0;
  for (const auto& [cookie, enrolled] : enrolled_) count += enrolled.missing.size();
  return count;
}

void Controller::on_changed(const workload::Workload& workload) {
  if (defer([this, workload] { on_changed(workload); })) return;
  auto it = enrolled_.find(workload.cookie);
  if (it == enrolled_.end()) return on_found(workload);
  it->second.workload = workload;
  workloads_touched_ = true;
  if (auto netns = discovery_->open_netns(workload.cookie))
    open_listeners(it->second, netns->get());
  if (options_.dns != nullptr && it->second.handle) options_.dns->open(workload, it->second.handle);
  log::info("workload changed: {} (netns cookie {})", workload.hint, workload.cookie);
  schedule_apply();
}

void Controller::on_gone(std::uint64_t cookie) {
  if (defer([this, cookie] { on_gone(cookie); })) return;
  not_enrolled_.erase(cookie);
  auto it = enrolled_.find(cookie);
  if (it == enrolled_.end()) return;
  const std::string hint = it->second.workload.hint;
  const auto reset = withdraw(cookie);
  log::info("workload gone: {} (netns cookie {}, {} relayed connections reset)", hint, cookie,
            reset);
}

std::size_t Controller::withdraw(std::uint64_t cookie) {
  const auto it = enrolled_.find(cookie);
  const std::string hint = it->second.workload.hint;
  enrolled_.erase(it);
  workloads_touched_ = true;
  // The maps first: nobody is sent there while the sockets go, and nobody comes in without the
  // sk_lookup program.
  apply();
  Status unknown;
  if (!ready_ || !last_failure_.empty()) unknown = unlearn(cookie);
  publish_directory();
  if (options_.dns != nullptr) options_.dns->drop(cookie);
  auto aborted = relay_.drop_namespace(cookie);
  // After the relay: a connection that ended just before may have left its leg there.
  if (options_.mesh != nullptr) options_.mesh->drop_namespace(cookie);
  if (!aborted) log::error("sockets of former workload {}: {}", hint, aborted.error().what);
  auto detached = unknown ? datapath_.programs().detach_inbound(cookie) : std::move(unknown);
  if (!detached) log::error("former workload {}: {}", hint, detached.error().what);
  return aborted.value_or(0);
}

// What is known of a namespace, out of the maps whatever else cannot be written.
Status Controller::unlearn(std::uint64_t cookie) {
  std::vector<mesh_addr> addresses;
  for (const auto& [address, owner] : datapath_.addrs.content())
    if (owner.netns == cookie) addresses.push_back(address);
  for (const auto& address : addresses) MESH_TRY(datapath_.addrs.erase(address), "addresses");
  return datapath_.netns.erase(cookie);
}

// The order closes before it opens: inbound SYNs are judged before the namespace may send, and both
// before anybody is told that the workload exists.
Status Controller::enrol(Enrolled& enrolled) {
  auto netns = discovery_->open_netns(enrolled.workload.cookie);
  if (!netns) return context(std::move(netns).error(), "enrol");
  MESH_TRY(datapath_.programs().attach_inbound(enrolled.workload.cookie, netns->get()), "enrol");
  open_listeners(enrolled, netns->get());
  enrolled.handle =
      std::make_shared<const NetnsHandle>(enrolled.workload.cookie, std::move(*netns));
  if (options_.dns != nullptr) options_.dns->open(enrolled.workload, enrolled.handle);
  publish_directory();
  return {};
}

void Controller::open_listeners(Enrolled& enrolled, int netns_fd) {
  const Missing before = std::exchange(enrolled.missing, {});
  const auto open = [&](bool wanted, bool& has, const Endpoint& at,
                        const std::shared_ptr<relay::Dialer>& dialer, std::string_view lost) {
    if (!wanted || has) return;
    auto socket = find_listener(enrolled.workload.cookie, netns_fd, at);
    Result<relay::ListenerId> id =
        socket ? relay_.listen(std::move(*socket), enrolled.workload.cookie, dialer)
               : Result<relay::ListenerId>(tl::unexpected(std::move(socket).error()));
    const std::string where = at.to_string();
    if (!id) {
      if (before.count(where) == 0)
        log::warn("workload {}: no relay at {}, so {} are refused; trying again: {}",
                  enrolled.workload.hint, where, lost, id.error().what);
      enrolled.missing.emplace(where, id.error().what);
      return;
    }
    if (before.count(where) != 0)
      log::info("workload {}: the relay at {} is open after all", enrolled.workload.hint, where);
    has = true;
  };
  const auto& workload = enrolled.workload;
  const char* const out = "its connections that need one";
  open(workload.has_ipv4_loopback, enrolled.has_listener4, loopback4(), dialer_, out);
  open(workload.has_ipv6_loopback, enrolled.has_listener6, loopback6(), dialer_, out);
  const auto has = [&](bool v4) {
    return inbound_dialer_ && std::any_of(workload.addresses.begin(), workload.addresses.end(),
                                          [&](const Address& a) { return a.is_v4() == v4; });
  };
  const char* const in = "connections from other nodes";
  open(has(true), enrolled.has_inbound4, mesh4(), inbound_dialer_, in);
  open(has(false), enrolled.has_inbound6, mesh6(), inbound_dialer_, in);
  if (enrolled.missing.empty())
    enrolled.retry = Enrolled{}.retry;
  else
    enrolled.retry.failed(Backoff::Clock::now());
}

Result<UniqueFd> Controller::find_listener(std::uint64_t cookie, int netns_fd, const Endpoint& at) {
  for (auto& one : inherited_)
    if (one.socket && one.netns_cookie == cookie && one.local == at) return std::move(one.socket);
  return make_listener(netns_fd, at);
}

Result<UniqueFd> Controller::make_listener(int netns_fd, const Endpoint& at) const {
  UniqueFd fd;
  auto status = in_netns(netns_fd, [&]() -> Status {
    const SockAddr address(at);
    const int one = 1;
    fd.reset(::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
    if (!fd) return fail_errno(errno, "socket");
    (void)::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one,
                       sizeof one);  // only shortens a restart
    if (address.family() == AF_INET6 &&
        ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) != 0)
      return fail_errno(errno, "IPV6_V6ONLY");  // or [::] would take the port of 0.0.0.0
    if (::bind(fd.get(), address.get(), address.length) != 0) return fail_errno(errno, "bind");
    MESH_TRY(datapath_.mark_agent_socket(fd.get()), "mark");
    if (::listen(fd.get(), kBacklog) != 0) return fail_errno(errno, "listen");
    return {};
  });
  if (!status) return context(std::move(status).error(), "listen at " + at.to_string());
  return fd;
}

void Controller::publish_directory() {
  NetnsDirectory::Snapshot snapshot;
  for (const auto& [cookie, enrolled] : enrolled_)
    if (enrolled.handle)
      for (const auto& address : enrolled.workload.addresses)
        snapshot.emplace(address, enrolled.handle);
  directory_->publish(std::move(snapshot));
}

void Controller::publish_mesh() {
  if (options_.mesh == nullptr || !catalog_) return;
  MeshView view;
  view.catalog = catalog_;
  view.labels = labels_.names();
  for (const auto& workload : node_.workloads)
    for (const auto& address : workload.addresses)
      if (const auto service = catalog_->identity_of(address)) view.own.emplace(address, *service);
  options_.mesh->publish(std::move(view));
}

void Controller::on_catalog(std::shared_ptr<const catalog::Catalog> catalog) {
  if (defer([this, catalog] { on_catalog(catalog); })) return;
  const bool nodes_stay = catalog_ && catalog_->shared_nodes() == catalog->shared_nodes();
  catalog_ = std::move(catalog);
  if (options_.dns != nullptr) options_.dns->set_catalog(catalog_);
  log::info("catalog applied: {} services, {} instances, {} nodes", catalog_->services().size(),
            catalog_->instances(), catalog_->nodes().size());
  schedule_apply();
  if (nodes_stay) return;
  auto unguarded = unguarded_cidrs(node_, *catalog_);
  if (unguarded != unguarded_)
    for (const auto& cidr : unguarded)
      log::warn(
          "{} of node {} is in no --mesh-cidr: give it to the agent and to the boot guard, or "
          "after "
          "a reboot it is outside the mesh until the catalog is read",
          cidr.to_string(), catalog_->node_of(cidr.base())->name);
  unguarded_ = std::move(unguarded);
}

void Controller::schedule_apply() {
  if (apply_scheduled_ || !ready_) return;
  if (defer([this] { schedule_apply(); })) return;
  apply_scheduled_ = true;
  boost::asio::post(io_, [this] {
    apply_scheduled_ = false;
    if (!defer([this] { schedule_apply(); })) apply();
  });
}

void Controller::apply() {
  if (!ready_) return;
  if (auto status = apply_now(); !status) {
    // Half applied is closed, not open: what is missing from a map is refused.
    if (status.error().what != last_failure_)
      log::error("the datapath is not up to date: {}", status.error().what);
    last_failure_ = status.error().what;
    apply_again_.failed(Backoff::Clock::now());
    return;
  }
  apply_again_.reset();
  if (!last_failure_.empty()) log::info("the datapath is up to date again");
  last_failure_.clear();
}

}  // namespace mesh::capture
