// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/revoker.h"

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "agent/base/log.h"
#include "agent/bpf/abi_convert.h"
#include "agent/capture/sock_destroy.h"

namespace mesh::capture {
namespace {

using namespace std::chrono_literals;

// One at once, and one for what was being opened meanwhile: decided by the old intentions, and not
// yet to be seen as a connection.
constexpr unsigned kPasses = 2;
constexpr auto kBetween = 300ms;
constexpr auto kRetry = 1s;
constexpr std::size_t kMostLogged = 20;  // pairs a pass

struct Denied {
  std::string source;
  std::string destination;
  std::string by;
  auto operator<=>(const Denied&) const = default;
};

// One end of a connection that is not allowed.
struct DeniedSocket {
  const mesh_conn_info* socket;
  std::string_view source;  // of the view
  Endpoint server;
  std::string by;
};

// Plaintext from beyond the mesh. Its SYN found the port permissive, or no program of ours; the
// next one would be refused if the port is strict.
std::optional<DeniedSocket> judge_plain(const PolicyView& view, const mesh_conn_info& c) {
  const Endpoint server{bpf::from_abi(c.tuple.local), c.tuple.local_port};
  // A leg of the relay whose record came too late; the relay ends its own.
  if (bpf::from_abi(c.tuple.remote).is_loopback()) return std::nullopt;
  // Of a pod that is not enrolled (now) nobody is asked; nor of a port that is no service's (now):
  // an instance that is taken out of the catalog to drain keeps what is open.
  if (!view.owns(c.netns, server.address) || !view.strict(server)) return std::nullopt;
  return DeniedSocket{&c, "outside", server, "mesh-inbound: strict"};
}

std::optional<DeniedSocket> judge(const PolicyView& view, const mesh_conn_info& c) {
  if (c.series.source == MESH_LABEL_OUTSIDE) return judge_plain(view, c);
  if (view.trivial()) return std::nullopt;
  const bool local = c.series.path == MESH_PATH_LOCAL;
  if (!local && c.series.path != MESH_PATH_TWOLEG) return std::nullopt;
  if (c.series.source == MESH_LABEL_NODE) return std::nullopt;
  const bool client = c.series.reporter == MESH_REPORTER_SOURCE;
  const Endpoint server = !client ? Endpoint{bpf::from_abi(c.tuple.local), c.tuple.local_port}
                          : local ? Endpoint{bpf::from_abi(c.tuple.remote), c.tuple.remote_port}
                                  : Endpoint{bpf::from_abi(c.target_addr), c.target_port};
  // A workload may always talk to itself.
  if (view.owns(c.netns, client ? server.address : bpf::from_abi(c.peer_addr))) return std::nullopt;
  // Who the client was when it connected, and who it is now: both have to be allowed.
  std::uint32_t source = c.series.source;
  auto decision = view.decide(source, server);
  if (client && decision.allowed()) {
    source = view.label_of_netns(c.netns);
    decision = view.decide(source, server);
  }
  if (decision.allowed()) return std::nullopt;
  return DeniedSocket{&c, view.name_of(source), server, decision.to_string()};
}

Endpoint client_of(const mesh_conn_info& c) {
  return {bpf::from_abi(c.tuple.local), c.tuple.local_port};
}

mesh_tuple swapped(const mesh_tuple& t) {
  return {.local = t.remote,
          .remote = t.local,
          .local_port = t.remote_port,
          .remote_port = t.local_port};
}

std::string text_or(std::string_view name, std::string_view otherwise) {
  return std::string(name.empty() ? otherwise : name);
}

}  // namespace

struct Revoker::Pass {
  std::shared_ptr<const PolicyView> view;
  std::shared_ptr<const MeshView> mesh;
  std::mutex mutex;  // the two below: the workers write beside each other and, late, beside us
  std::map<Denied, std::size_t> ended;
  std::set<std::pair<std::uint64_t, Endpoint>> relayed;  // netns and address of clients reset
  std::size_t failed = 0;
  std::string first_failure;

  void note(std::string_view source, const Endpoint& server, std::string by) {
    const std::lock_guard lock(mutex);
    ++ended[{text_or(source, "unknown"), std::string(view->destination_at(server)), std::move(by)}];
  }
  bool was_relayed(std::uint64_t netns, const Endpoint& client) {
    const std::lock_guard lock(mutex);
    return relayed.contains({netns, client});
  }
  void fail(const std::string& what) {
    if (failed++ == 0) first_failure = what;
  }
};

std::string_view Revoker::to_string(Path path) {
  constexpr std::array<std::string_view, kPaths> kNames = {
      "local", "sockmap", "twoleg", "mesh_outbound", "mesh_inbound", "passthrough"};
  return kNames[static_cast<std::size_t>(path)];
}

Revoker::Revoker(const bpf::Datapath& datapath, relay::Pool& relay,
                 std::shared_ptr<const NetnsDirectory> directory,
                 std::shared_ptr<const PolicyDirectory> policy,
                 std::shared_ptr<const MeshDirectory> mesh)
    : datapath_(datapath),
      relay_(relay),
      directory_(std::move(directory)),
      policy_(std::move(policy)),
      mesh_(std::move(mesh)),
      thread_([this] { run(); }) {}

Revoker::~Revoker() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Revoker::wake() {
  {
    const std::lock_guard lock(mutex_);
    wanted_ = kPasses;
  }
  changed_.notify_all();
}

Revoker::Counts Revoker::counts() const {
  Counts counts;
  for (std::size_t i = 0; i < kPaths; ++i) counts.revoked[i] = revoked_->by_path[i].load();
  counts.misplaced = revoked_->misplaced.load();
  counts.passes = passes_.load();
  counts.failures = failures_.load();
  counts.last_pass_ns = last_pass_ns_.load();
  return counts;
}

void Revoker::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || wanted_ != 0; });
    if (stopping_) return;
    const unsigned mine = wanted_--;
    lock.unlock();
    const bool done = pass();
    lock.lock();
    // A change that came meanwhile has set it to the full number again, and is not waited for.
    if (wanted_ >= mine) continue;
    if (!done && wanted_ == 0) wanted_ = 1;
    if (wanted_ != 0)
      changed_.wait_for(lock, done ? Clock::duration(kBetween) : Clock::duration(kRetry),
                        [&] { return stopping_ || wanted_ >= mine; });
  }
}

bool Revoker::pass() {
  const auto pass = std::make_shared<Pass>();
  pass->view = policy_->get();
  if (!pass->view) return true;
  if (mesh_) pass->mesh = mesh_->get();
  const bool trivial = pass->view->trivial();
  const auto start = Clock::now();
  if (!trivial || pass->mesh) end_relayed(pass);
  end_sockets(*pass);
  report(*pass);
  last_pass_ns_ = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count());
  ++passes_;
  return pass->failed == 0;
}

// By the relay itself: both of its legs are reset. Legs that stand idle may stay, as what they
// carry next is decided then.
void Revoker::end_relayed(const std::shared_ptr<Pass>& pass) {
  const auto denied = [pass, revoked = revoked_](const relay::ConnectionRecord& c) {
    using State = relay::ConnectionRecord::State;
    if (c.state == State::Idle || c.server.port == 0) return false;
    const PolicyView& view = *pass->view;
    const bool inbound = c.security && c.secure_side == relay::Side::Inbound;
    std::string source;
    if (inbound) {
      if (!pass->mesh) return false;
      source = pass->mesh->service_of(c.security->peer.id).value_or("");
      const auto& peer = c.security->peer;
      if (placed_elsewhere(*pass->mesh, peer, c.client.address)) {
        pass->note(source, c.server, placed(*pass->mesh, peer, c.client.address).error());
        ++revoked->misplaced;
        return true;
      }
    } else {
      if (view.owns(c.client_netns, c.server.address)) return false;  // it talks to itself
      source = view.name_of(view.label_of_netns(c.client_netns));
    }
    const auto decision = view.decide(source, c.server);
    if (decision.allowed()) return false;
    pass->note(source, c.server, decision.to_string());
    const Path path = inbound ? Path::MeshInbound : c.security ? Path::MeshOutbound : Path::Twoleg;
    ++revoked->by_path[static_cast<std::size_t>(path)];
    const std::lock_guard lock(pass->mutex);
    pass->relayed.emplace(c.client_netns, c.client);
    return true;
  };
  if (auto aborted = relay_.abort_where(denied); !aborted) pass->fail(aborted.error().what);
}

// What no process of ours carries, and what the relay did not know yet.
void Revoker::end_sockets(Pass& pass) {
  auto sockets = datapath_.sockets();
  if (!sockets) return pass.fail(sockets.error().what);
  std::map<std::uint64_t, std::vector<DeniedSocket>> by_netns;
  for (const auto& socket : *sockets)
    if (auto denied = judge(*pass.view, socket)) by_netns[socket.netns].push_back(*denied);
  if (by_netns.empty()) return;

  std::map<std::uint64_t, std::shared_ptr<const NetnsHandle>> handles;
  if (const auto snapshot = directory_->snapshot())
    for (const auto& [address, handle] : *snapshot) handles.emplace(handle->cookie, handle);
  std::set<mesh_tuple, bpf::ByteLess> counted;  // as the client has it
  for (const auto& [netns, ends] : by_netns) {
    const auto handle = handles.find(netns);
    if (handle == handles.end()) continue;  // gone with its sockets, or about to be
    auto destroyer = SocketDestroyer::open(handle->second->fd.get());
    if (!destroyer) {
      pass.fail(destroyer.error().what);
      continue;
    }
    for (const auto& [socket, source, server, by] : ends) {
      const auto ended = destroyer->destroy(socket->tuple, socket->cookie, socket->bound_if);
      if (!ended) pass.fail(ended.error().what);
      if (!ended || !*ended) continue;
      const bool client = socket->series.reporter == MESH_REPORTER_SOURCE;
      const bool local = socket->series.path == MESH_PATH_LOCAL;
      const bool plain = socket->series.source == MESH_LABEL_OUTSIDE;
      // A connection once, whichever of its ends was the first. The relay has counted its own.
      if (!local && !plain && (!client || pass.was_relayed(netns, client_of(*socket)))) continue;
      if (!counted.insert(client ? socket->tuple : swapped(socket->tuple)).second) continue;
      const Path path = plain                                     ? Path::Passthrough
                        : (socket->flags & MESH_SOCK_ACCEL) != 0  ? Path::Sockmap
                        : local                                   ? Path::Local
                        : (socket->flags & MESH_SOCK_REMOTE) != 0 ? Path::MeshOutbound
                                                                  : Path::Twoleg;
      ++revoked_->by_path[static_cast<std::size_t>(path)];
      pass.note(source, server, by);
    }
  }
}

void Revoker::report(Pass& pass) {
  std::size_t lines = 0, more = 0;
  std::unique_lock lock(pass.mutex);
  for (const auto& [denied, count] : pass.ended) {
    if (lines++ < kMostLogged)
      log::warn("{} connections of {} to {} were ended: {}", count, denied.source,
                denied.destination, denied.by);
    else
      more += count;
  }
  lock.unlock();
  if (more != 0) log::warn("{} connections of {} more pairs were ended", more, lines - kMostLogged);
  if (pass.failed == 0) return;
  failures_ += pass.failed;
  log::error("{} connections that are denied are still open, trying again: {}", pass.failed,
             pass.first_failure);
}

}  // namespace mesh::capture
