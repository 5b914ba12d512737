// SPDX-License-Identifier: Apache-2.0
#include "agent/store/registrar.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "agent/base/await.h"

namespace mesh::store {
namespace {

namespace net = boost::asio;
using std::chrono::milliseconds;

constexpr milliseconds kTick{1000};
constexpr milliseconds kRetry{500};
constexpr std::size_t kBatch = 60;  // two operations each stay below Transaction::kMaxOperations
constexpr milliseconds kJitterPerNode{5};
constexpr milliseconds kMaxJitter{3000};
// So often in a row it is not others who are quicker: what is there is not seen, as with too many
// keys.
constexpr unsigned kManyConflicts = 5;

}  // namespace

Registrar::Registrar(net::io_context& io, Options options, Engine& engine, Content& content)
    : io_(io),
      options_(std::move(options)),
      engine_(engine),
      content_(content),
      wake_(io),
      random_(std::random_device{}()) {}

void Registrar::start() { net::co_spawn(io_, run(), net::detached); }

void Registrar::stop() {
  stopped_ = true;
  wake_.cancel();
}

void Registrar::set_connected(bool connected) {
  connected_ = connected;
  wake();
}

void Registrar::wake() {
  pending_ = true;
  wake_.cancel();
  if (!active() || assigning_ || content_.without_vip(1).empty()) return;
  assigning_ = true;
  net::co_spawn(io_, assign_vips(), net::detached);
}

net::awaitable<void> Registrar::sleep(milliseconds time) {
  net::steady_timer timer(io_);
  const auto end = std::chrono::steady_clock::now() + time;
  // In small parts, so that stop() does not wait for it.
  while (!stopped_ && std::chrono::steady_clock::now() < end) {
    timer.expires_at(std::min(end, std::chrono::steady_clock::now() + milliseconds(100)));
    (void)co_await timer.async_wait(kAwait);  // nobody cancels it
  }
}

net::awaitable<void> Registrar::until_seen(Revision revision) {
  for (int i = 0; i < 200 && active() && engine_.counters().revision < revision; ++i)
    co_await sleep(milliseconds(5));
}

net::awaitable<void> Registrar::run() {
  while (!stopped_) {
    if (!pending_) {
      wake_.expires_after(kTick);
      (void)co_await wake_.async_wait(kAwait);  // canceled: there may be something to do
    }
    pending_ = false;
    if (!active()) continue;
    auto status = co_await renew_lease();
    if (status) status = co_await write_own();
    if (!status) ++counters_.failures;
    problem_ = status ? "" : status.error().what;
    if (!status && active()) co_await sleep(kRetry);
  }
}

net::awaitable<Status> Registrar::renew_lease() {
  const auto now = std::chrono::steady_clock::now();
  if (lease_ == 0) {
    if (content_.wanted().empty()) co_return Status{};
    auto lease = co_await engine_.grant(options_.lease_ttl);
    if (!lease) co_return tl::unexpected(std::move(lease).error());
    lease_ = *lease;
    renewed_ = now;
    co_return Status{};
  }
  if (now - renewed_ < options_.lease_ttl / 3) co_return Status{};
  auto left = co_await engine_.renew(lease_);
  if (!left) co_return tl::unexpected(std::move(left).error());
  renewed_ = now;
  if (left->count() > 0) co_return Status{};
  // Its keys went with it: all are written again under the next.
  ++counters_.leases_lost;
  lease_ = 0;
  co_return co_await renew_lease();
}

void Registrar::put_wanted(const std::map<std::string, std::string>& wanted, std::size_t most,
                           Transaction& transaction) const {
  for (const auto& [key, value] : wanted) {
    if (transaction.puts.size() >= most) return;
    const auto have = content_.own_keys().find(key);
    const bool exists = have != content_.own_keys().end();
    if (exists && have->second.lease == lease_ && have->second.value == value) continue;
    transaction.conditions.push_back({key, exists ? have->second.modified : 0});
    transaction.puts.push_back({key, value, lease_});
  }
}

net::awaitable<Status> Registrar::write_own() {
  if (lease_ == 0) co_return Status{};
  const std::string self = node_key(options_.node_name);
  const auto wanted_self = content_.wanted().find(self);
  if (wanted_self != content_.wanted().end()) {
    const auto have = content_.own_keys().find(self);
    const auto* other = content_.registered_self();
    // Another machine with our name: it keeps the name for as long as it renews its lease.
    if (have != content_.own_keys().end() && have->second.lease != 0 &&
        have->second.lease != lease_ && have->second.value != wanted_self->second &&
        other != nullptr &&
        wanted_self->second.find("\"" + other->address.to_string() + "\"") == std::string::npos)
      co_return fail(
          "the node name {} is registered by {} already: give each node a name of its own",
          options_.node_name, other->address.to_string());
  }
  unsigned conflicts = 0;
  for (bool first = true; active(); first = false) {
    // Health that never rests does not keep the lease from being renewed.
    if (!first && std::chrono::steady_clock::now() - renewed_ >= options_.lease_ttl / 3) {
      pending_ = true;
      break;
    }
    Transaction transaction;
    // An instance's health no later than the instance: nobody takes it for passing in between. Half
    // of the room for each, so that neither waits for the other.
    put_wanted(content_.wanted_health(), kBatch / 2, transaction);
    put_wanted(content_.wanted(), kBatch, transaction);
    for (const auto& [key, have] : content_.own_keys()) {
      if (transaction.puts.size() + transaction.deletes.size() >= kBatch) break;
      // What this run registered. Of earlier runs, the lease runs out; what somebody has written
      // among our words on health without one would stay.
      const bool health = key.starts_with("health/");
      if (have.lease != lease_ && !(health && have.lease == 0)) continue;
      const auto& wanted = health ? content_.wanted_health() : content_.wanted();
      if (wanted.contains(key)) continue;
      transaction.conditions.push_back({key, have.modified});
      transaction.deletes.push_back(key);
    }
    if (transaction.conditions.empty()) co_return Status{};
    auto commit = co_await engine_.commit(std::move(transaction));
    if (!commit) {
      // The lease may be what is missing: find out before the next attempt.
      renewed_ = {};
      co_return tl::unexpected(std::move(commit).error());
    }
    ++(commit->done ? counters_.writes : counters_.conflicts);
    co_await until_seen(commit->revision);
    conflicts = commit->done ? 0 : conflicts + 1;
    if (conflicts == kManyConflicts)
      co_return fail("keys of this node are not as they are seen: are there too many keys?");
    if (conflicts > 0) co_await sleep(milliseconds(20));
  }
  co_return Status{};
}

// Who registers services asks for their VIPs at once; the others give it some time, or all agents
// would write the same at the same moment.
net::awaitable<void> Registrar::assign_vips() {
  std::size_t batch = kBatch;
  unsigned conflicts = 0;
  while (active()) {
    auto names = content_.without_vip(batch);
    if (names.empty()) break;
    const bool own = std::any_of(names.begin(), names.end(), [&](const std::string& name) {
      auto key = content_.wanted().lower_bound(instance_key(name, options_.node_name + "/"));
      return key != content_.wanted().end() &&
             key->first.starts_with(instance_key(name, options_.node_name + "/"));
    });
    if (!own) {
      const auto catalog = content_.build();
      const auto nodes = catalog ? catalog->nodes().size() : 1;
      const auto most = std::min<std::int64_t>(
          kMaxJitter.count(), kJitterPerNode.count() * static_cast<std::int64_t>(nodes + 1));
      co_await sleep(milliseconds(std::uniform_int_distribution<std::int64_t>(0, most)(random_)));
      if (!active()) break;
      names = content_.without_vip(batch);
    }
    Transaction transaction;
    std::set<Address> taken;
    for (const auto& name : names) {
      auto wish = options_.wishes.find(name);
      const Address vip = content_.propose_vip(
          name, wish == options_.wishes.end() ? std::nullopt : std::optional(wish->second), taken);
      taken.insert(vip);
      transaction.conditions.push_back({vip_key(name), 0});
      transaction.conditions.push_back({vip_owner_key(vip), 0});
      transaction.puts.push_back({vip_key(name), vip_value(vip), 0});
      transaction.puts.push_back({vip_owner_key(vip), name, 0});
    }
    if (names.empty()) break;
    auto commit = co_await engine_.commit(std::move(transaction));
    if (!commit) {
      ++counters_.failures;
      co_await sleep(kRetry);
      continue;
    }
    ++(commit->done ? counters_.writes : counters_.conflicts);
    // One that somebody else has written fails all of them: go on in smaller steps.
    batch = commit->done ? kBatch : std::max<std::size_t>(1, batch / 4);
    co_await until_seen(commit->revision);
    (void)content_.build();  // so that the services which have one now do not ask again
    conflicts = commit->done ? 0 : conflicts + 1;
    if (conflicts > 0) co_await sleep(conflicts < kManyConflicts ? milliseconds(10) : kRetry);
  }
  assigning_ = false;
}

}  // namespace mesh::store
